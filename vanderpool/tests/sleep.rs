//! Suspend to RAM: Debian's kernel sleeps until an alarm of the real-time clock, and goes on where it was.

mod common;

use common::{BOOT_LIMIT, Run, boot_arguments, cache, kernel, temporary};
use guests::images;
use guests::iso::{self, IsoFile};

/// Sleeps for five seconds with data in memory and on the disk, and looks at both afterwards.
const SCRIPT: &str = "\
    mkdir -p /tmp; mount -t tmpfs none /tmp\n\
    seq 1 100000 > /tmp/before; seq 1 50000 | dd of=/dev/vda bs=4k count=20 conv=fsync 2>/dev/null\n\
    grep . /sys/power/mem_sleep\n\
    before=$(cat /sys/class/rtc/rtc0/since_epoch)\n\
    echo +5 > /sys/class/rtc/rtc0/wakealarm\n\
    echo mem > /sys/power/state || exit 1\n\
    echo slept $(($(cat /sys/class/rtc/rtc0/since_epoch) - before)) s\n\
    seq 1 100000 | cmp - /tmp/before && echo memory is as it was\n\
    echo 3 > /proc/sys/vm/drop_caches\n\
    seq 1 50000 | head -c 81920 | cmp - /dev/vda -n 81920 && echo the disk answers\n\
    echo $(grep -c ^processor /proc/cpuinfo) processors\n";

fn check(run: &Run) {
    run.expect("[deep]").expect("PM: suspend entry (deep)").expect("ACPI: PM: Waking up from system sleep state S3");
    run.expect("slept 5 s").expect("memory is as it was").expect("the disk answers").expect_success();
}

fn goes_on(name: &str, options: &[&str]) {
    let disk = temporary(&format!("{name}.img"), &vec![0; 1 << 20]);
    let mut arguments = boot_arguments(name, images::with_script(kernel(), SCRIPT).unwrap());
    arguments.extend(options.iter().copied().map(String::from));
    arguments.extend(["--cpus", "2", "--memory", "256M", "--disk", disk.to_str().unwrap()].map(String::from));
    let run = common::run(&arguments, BOOT_LIMIT);
    check(run.expect("2 processors"));
}

#[test]
fn a_direct_boot_goes_on_at_the_waking_vector() {
    goes_on("sleep-direct", &[]);
}

#[test]
fn a_machine_with_threads_goes_on() {
    goes_on("sleep-threads", &["--threads"]);
}

#[test]
fn seabios_finds_its_way_back_to_the_kernel() {
    let disk = temporary("sleep-firmware.img", &vec![0; 1 << 20]);
    let initrd = images::write("sleep-firmware", images::with_script(kernel(), SCRIPT).unwrap()).unwrap();
    let files = [IsoFile { path: "vmlinuz", source: &kernel().image }, IsoFile { path: "initrd", source: &initrd }];
    let script = format!("linux /vmlinuz console=ttyS0 vp.run={}\ninitrd /initrd", images::SCRIPT);
    let iso = iso::grub(cache(), "sleep-firmware", &script, &files).unwrap();
    let arguments = ["boot", "--firmware", "seabios", "--cdrom", iso.to_str().unwrap(), "--memory", "512M", "--disk"];
    check(&common::run(&[&arguments[..], &[disk.to_str().unwrap()]].concat(), 2 * BOOT_LIMIT));
}
