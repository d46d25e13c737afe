//! Debian's SeaBIOS boots GRUB ISO images.

mod common;

use common::{BOOT_LIMIT, Session, cache, kernel};
use guests::images;
use guests::iso::{self, IsoFile};
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
