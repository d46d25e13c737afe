//! Debian's KVM on our VT-x.

mod common;

use common::{Run, boot_arguments, cache, kernel, run};
use guests::{images, programs};
use std::time::Duration;
use vanderpool::initramfs::Initramfs;

const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn the_kernel_sees_the_vmx_features_and_loads_kvm_intel() {
    let script = "grep -m1 '^vmx flags' /proc/cpuinfo; grep -m1 -ow vmx /proc/cpuinfo; lsmod; ls -l /dev/kvm; \
                  echo apicv: $(cat /sys/module/kvm_intel/parameters/enable_apicv)";
    let run = run(&boot_arguments("vmx-flags", images::with_script(kernel(), script).unwrap()), LIMIT);
    run.expect_success().expect("kvm_intel").expect("/dev/kvm").expect("apicv: Y");
    let flags = run.console.lines().find(|line| line.starts_with("vmx flags")).expect("a line of VMX flags");
    for flag in [
        "vnmi",
        "preemption_timer",
        "invvpid",
        "flexpriority",
        "tsc_offset",
        "vtpr",
        "mtf",
        "vapic",
        "ept",
        "ept_ad",
        "vpid",
        "unrestricted_guest",
        "apicv",
        "vapic_reg",
        "vid",
        "posted_intr",
    ] {
        assert!(flags.split_whitespace().any(|f| f == flag), "no {flag} in {flags}");
    }
}

/// An image that runs the KVM client.
fn kvm_client() -> Initramfs {
    let mut image = images::with_script(kernel(), "kvm_client").unwrap();
    image.file("bin/kvm_client", 0o755, &programs::build("kvm_client").unwrap());
    image
}

fn expect_kvm_client(run: &Run) {
    for test in
        ["real_mode", "long_mode", "interrupt_window", "single_step", "kernel_apic", "dirty_log", "triple_fault"]
    {
        run.expect(&format!("PASS {test}"));
    }
    run.expect("kvm_client: 0 failed").expect_success();
}

#[test]
fn a_kvm_client_runs_real_mode_and_long_mode_guests() {
    expect_kvm_client(&run(&boot_arguments("kvm-client", kvm_client()), LIMIT));
}

#[test]
fn a_kvm_client_in_l2_runs_its_guests_as_l3() {
    // The full model has VMCS shadowing, with which KVM's VMREAD and VMWRITE in L2 do not exit.
    let image = images::nested(cache(), kernel(), kvm_client(), "-m 256M").unwrap();
    let mut arguments = boot_arguments("nested-kvm-client", image);
    arguments.extend(["--cpu", "full", "--memory", "1G"].map(str::to_owned));
    expect_kvm_client(&run(&arguments, LIMIT));
}

#[test]
fn qemu_with_kvm_boots_the_same_kernel_as_l2() {
    let script = "echo L2: $(uname -s) $(nproc) $(grep -c hypervisor /proc/cpuinfo); seq 1 1000 | sha256sum";
    let guest = images::with_script(kernel(), script).unwrap();
    let image = images::nested(cache(), kernel(), guest, "-m 256M").unwrap();
    let mut arguments = boot_arguments("nested", image);
    arguments.extend(["--memory", "1G"].map(str::to_owned));
    let run = run(&arguments, LIMIT);
    run.expect("L2: Linux 1 1").expect("67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f");
    // L2's init says so, QEMU ends with 0, and L1's init says so.
    assert_eq!(run.console.matches("vanderpool: status 0").count(), 2, "{}", run.console);
    assert_eq!(run.console.matches("reboot: Power down").count(), 2, "{}", run.console);
    run.expect_status(0);
}

fn boot_l3(name: &str, model: &str) {
    let script = "echo L3: $(uname -s) $(grep -c '^flags.* vmx' /proc/cpuinfo); seq 1 1000 | sha256sum";
    let l3 = images::with_script(kernel(), script).unwrap();
    let l2 = images::nested(cache(), kernel(), l3, "-m 256M").unwrap();
    let l1 = images::nested(cache(), kernel(), l2, "-m 768M").unwrap();
    let mut arguments = boot_arguments(name, l1);
    arguments.extend(["--cpu", model, "--memory", "2G"].map(str::to_owned));
    let run = run(&arguments, Duration::from_secs(3600));
    run.expect("L3: Linux 1").expect("67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f");
    assert_eq!(run.console.matches("vanderpool: status 0").count(), 3, "{}", run.console);
    assert_eq!(run.console.matches("reboot: Power down").count(), 3, "{}", run.console);
    run.expect_status(0);
}

#[test]
#[ignore = "boots Debian three times, one in the other: minutes"]
fn qemu_with_kvm_in_l2_boots_the_same_kernel_as_l3() {
    boot_l3("nested-twice", "icelake-server");
}

#[test]
#[ignore = "boots Debian three times, one in the other: minutes"]
fn qemu_with_kvm_in_l2_boots_the_same_kernel_as_l3_with_vmcs_shadowing() {
    boot_l3("nested-twice-full", "full");
}
