//! Debian's SeaBIOS boots GRUB ISO images; memtest86+ tests a small memory.

mod common;

use common::{BOOT_LIMIT, Session, cache, kernel};
use guests::images;
use guests::iso::{self, IsoFile};
use std::path::PathBuf;
use std::time::Duration;

fn firmware(medium: &str, path: &std::path::Path, limit: Duration, memory: &str) -> Session {
    let path = path.to_str().unwrap();
    Session::start(&["boot", "--firmware", "seabios", medium, path, "--memory", memory], limit)
}

fn linux_iso(name: &str) -> std::path::PathBuf {
    let image = images::with_script(kernel(), "echo from the ISO: $(uname -s)").unwrap();
    let initrd = images::write(name, image).unwrap();
    let files = [IsoFile { path: "vmlinuz", source: &kernel().image }, IsoFile { path: "initrd", source: &initrd }];
    let script = format!("linux /vmlinuz console=ttyS0 vp.run={}\ninitrd /initrd", images::SCRIPT);
    iso::grub(cache(), name, &script, &files).unwrap()
}

#[test]
fn seabios_boots_a_grub_iso_that_starts_debians_kernel() {
    let iso = linux_iso("firmware-cdrom");
    firmware("--cdrom", &iso, BOOT_LIMIT, "512M").finish().expect("from the ISO: Linux").expect_success();
}

#[test]
fn seabios_boots_the_same_image_as_a_disk() {
    let iso = linux_iso("firmware-disk");
    firmware("--disk", &iso, BOOT_LIMIT, "512M").finish().expect("from the ISO: Linux").expect_success();
}

/// A pass takes some six thousand million instructions.
const MEMTEST_LIMIT: Duration = Duration::from_secs(900);
/// Without a wait for keys at the start.
const MEMTEST_OPTIONS: &str = "console=ttyS0,115200 nopause";

fn memtest() -> PathBuf {
    let packages = cache().packages("memtest86+", &["memtest86+"]).expect("Debian's memtest86+");
    packages.join("boot/memtest86+x64.bin")
}

/// Takes the bit-fade test out in memtest86+'s menus (it waits 160 seconds of virtual time), lets all others pass, and leaves,
/// which resets the machine. With `upper_limit` (such as `4m`) only memory below that is tested.
fn passes(mut session: Session, upper_limit: Option<&str>) {
    let limit = format!("{}\r01", upper_limit.unwrap_or_default());
    let mut dialog = vec![("Errors: 0", "1")];
    match upper_limit {
        None => dialog.push(("Settings:", "1")),
        Some(_) => dialog.extend([("Settings:", "2"), ("Set upper limit", "2"), ("Enter upper limit", &*limit)]),
    }
    dialog.extend([
        ("Clear selection", "2"),
        ("Enter test #", "10\r"),
        ("*.********.", "00"),
        ("Status: Pass", "\x1b"),
    ]);
    for (prompt, keys) in dialog {
        if !session.wait_for(prompt) {
            break;
        }
        session.send(keys);
    }
    session.finish().expect("Status: Pass").expect("Pass:  1        Errors: 0").expect_status(10);
}

#[test]
fn memtest_passes_started_directly() {
    let kernel = memtest();
    let arguments =
        ["boot", "--no-reboot", "--memory", "5M", "--kernel", kernel.to_str().unwrap(), "--append", MEMTEST_OPTIONS];
    passes(Session::start(&arguments, MEMTEST_LIMIT), None);
}

#[test]
fn memtest_passes_started_by_grub() {
    let files = [IsoFile { path: "memtest", source: &memtest() }];
    let iso = iso::grub(cache(), "firmware-memtest", &format!("linux /memtest {MEMTEST_OPTIONS}"), &files).unwrap();
    let arguments =
        ["boot", "--no-reboot", "--memory", "16M", "--firmware", "seabios", "--cdrom", iso.to_str().unwrap()];
    passes(Session::start(&arguments, MEMTEST_LIMIT), Some("4m"));
}
