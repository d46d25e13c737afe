//! Debian's Xen on our VT-x: the hypervisor and its dom0.

mod common;

use common::{Session, cache, kernel};
use guests::{images, xen};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1800);

#[test]
fn xen_boots_debians_kernel_as_dom0() {
    let script = "echo hypervisor: $(cat /sys/hypervisor/type) $(cat /sys/hypervisor/version/major)";
    let dom0 = images::with_script(kernel(), script).unwrap();
    let iso = xen::grub(cache(), "xen-dom0", kernel(), dom0, "512M").unwrap();
    let arguments = ["boot", "--firmware", "seabios", "--cdrom", iso.to_str().unwrap(), "--memory", "1G"];
    let run = Session::start(&arguments, LIMIT).finish();
    run.expect("VMX: Supported advanced features").expect("hypervisor: xen 4").expect_success();
}

#[test]
fn xen_runs_debians_kernel_as_a_pvh_guest() {
    let script = "echo guest: $(cat /sys/hypervisor/type) $(nproc); seq 1 1000 | sha256sum";
    let dom0 = xen::dom0_with_guest(cache(), kernel(), images::with_script(kernel(), script).unwrap()).unwrap();
    let iso = xen::grub(cache(), "xen-guest", kernel(), dom0, "768M").unwrap();
    let arguments = ["boot", "--firmware", "seabios", "--cdrom", iso.to_str().unwrap(), "--memory", "1536M"];
    let run = Session::start(&arguments, LIMIT).finish();
    run.expect("guest: xen 1").expect("67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f");
    run.expect("dom0: the guest has ended").expect_success();
}
