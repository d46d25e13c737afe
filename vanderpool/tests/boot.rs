//! Debian's kernel boots on 1, 2 and 4 processors, reads and writes a disk, fetches a page and powers off.

mod common;

use common::{BOOT_LIMIT, Session, boot_arguments, kernel, run, serve, temporary};
use guests::images;
use std::fs;
use vanderpool::initramfs::Initramfs;

const SECTORS: usize = 8192;
const PAGE: &str = "a page from the host's loopback\n";

/// A disk whose every sector tells its number.
fn disk() -> Vec<u8> {
    let mut data = vec![0; SECTORS * 512];
    for (number, sector) in data.chunks_mut(512).enumerate() {
        sector.fill(number as u8 ^ 0x5a);
        sector[..8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    data
}

fn boots(cpus: usize, options: &[&str]) {
    let before = disk();
    let name = format!("boot-{cpus}{}", options.concat());
    let image = temporary(&format!("{name}.img"), &before);
    let port = serve(PAGE);
    // Sector 4096 on goes to a file and back to sector 100; a file system is made, used, and read again after its caches were dropped.
    let script = format!(
        "set -e\n\
         [ $(nproc) = {cpus} ] && echo processors: {cpus}\n\
         dd if=/dev/vda of=/tmp/part bs=512 skip=4096 count=64 2>/dev/null\n\
         dd if=/tmp/part of=/dev/vda bs=512 seek=100 conv=fsync 2>/dev/null\n\
         mke2fs -F /dev/vdb >/dev/null 2>&1\n\
         mount -t ext4 /dev/vdb /mnt\n\
         seq 1 20000 >/mnt/numbers\n\
         umount /mnt\n\
         echo 3 >/proc/sys/vm/drop_caches\n\
         mount -t ext4 -o ro /dev/vdb /mnt\n\
         echo sum: $(sha256sum </mnt/numbers)\n\
         umount /mnt\n\
         wget -q -O - http://10.0.2.2:{port}/"
    );
    let second = temporary(&format!("{name}-ext.img"), &vec![0; 8 << 20]);
    let mut arguments = boot_arguments(&name, images::with_script(kernel(), &script).unwrap());
    arguments.extend(["--cpus", &cpus.to_string(), "--memory", "512M", "--net", "user"].map(str::to_owned));
    arguments.extend(options.iter().copied().map(str::to_owned));
    for image in [&image, &second] {
        arguments.extend(["--disk".to_owned(), image.to_str().unwrap().to_owned()]);
    }
    let run = run(&arguments, BOOT_LIMIT);
    run.expect(&format!("processors: {cpus}")).expect(PAGE.trim_end());
    // sha256 of the numbers from 1 to 20000, a line each.
    run.expect("sum: f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a").expect_success();

    let after = fs::read(&image).unwrap();
    let part = 4096 * 512..(4096 + 64) * 512;
    let target = 100 * 512..(100 + 64) * 512;
    assert_eq!(after[target.clone()], before[part], "what the guest wrote");
    assert_eq!(after[..target.start], before[..target.start]);
    assert_eq!(after[target.end..], before[target.end..]);
}

#[test]
fn debian_boots_on_one_processor() {
    boots(1, &[]);
}

#[test]
fn debian_boots_on_two_processors() {
    boots(2, &[]);
}

#[test]
fn debian_boots_on_four_processors() {
    boots(4, &[]);
}

#[test]
fn with_a_thread_for_each_processor() {
    boots(2, &["--threads"]);
}

#[test]
fn a_snapshot_leaves_the_image_as_it_was() {
    let before = disk();
    let image = temporary("snapshot.img", &before);
    let script = "dd if=/dev/zero of=/dev/vda bs=512 count=100 conv=fsync 2>/dev/null; dd if=/dev/vda bs=512 count=100 2>/dev/null | md5sum";
    let mut arguments = boot_arguments("snapshot", images::with_script(kernel(), script).unwrap());
    arguments.extend(["--disk".to_owned(), format!("{},snapshot", image.display())]);
    let run = run(&arguments, BOOT_LIMIT);
    // The guest reads back the zeros that it wrote.
    run.expect("bf235f22df3e004ede21041978c24f2e").expect_success();
    assert_eq!(fs::read(&image).unwrap(), before);
}

#[test]
fn keys_reach_the_shell_and_its_end_powers_off() {
    let mut arguments = boot_arguments("keys", Initramfs::new(kernel()).unwrap());
    let append = arguments.last_mut().unwrap();
    *append = append.replace(&format!("vp.run={}", images::SCRIPT), "");
    let mut session = Session::start(&arguments, BOOT_LIMIT);
    assert!(session.wait_for("/root # "), "{:?}", session.finish());
    session.send("echo $((6 * 7)) are the answer\n");
    assert!(session.wait_for("\n42 are the answer"), "{:?}", session.finish());
    session.send("exit\n");
    session.finish().expect("reboot: Power down").expect_status(0);
}
