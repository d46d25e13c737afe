//! `cargo xtask image`: the images of the tests as files, to boot by hand.

use clap::ValueEnum;
use guests::iso::{self, IsoFile};
use guests::{images, programs, xen};
use vanderpool::Error;
use vanderpool::debian::{Cache, Kernel};
use vanderpool::initramfs::Initramfs;

/// Which image.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// The base system: a shell.
    Shell,
    /// The KVM client of the tests.
    KvmClient,
    /// QEMU with KVM and a guest of its own.
    Nested,
    /// QEMU with KVM, and a guest that has the same: three levels.
    NestedTwice,
    /// QEMU with KVM, and a guest with the KVM client.
    NestedKvmClient,
    /// A GRUB ISO that starts Xen with a dom0 that starts a PVH guest.
    Xen,
    /// The loop of getpid.
    Getpid,
    /// A GRUB ISO that starts the kernel with a shell.
    Iso,
    /// A GRUB ISO that starts memtest86+.
    Memtest,
}

#[derive(clap::Args)]
pub struct Arguments {
    /// Which image.
    kind: Kind,
    /// Further options for the QEMU in the nested images.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    qemu_options: String,
}

/// What the innermost guest says of where it is.
const WHERE: &str = "uname -a; head -4 /proc/cpuinfo";

fn kvm_client(kernel: &Kernel) -> Result<Initramfs, Error> {
    let mut image = images::with_script(kernel, "/bin/kvm_client")?;
    image.file("bin/kvm_client", 0o755, &programs::build("kvm_client")?);
    Ok(image)
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let cache = Cache::of_user(|line| eprintln!("xtask: {line}"))?;
    let kernel = cache.kernel()?;
    match arguments.kind {
        Kind::Iso => return iso(&cache, &kernel),
        Kind::Memtest => return memtest(&cache),
        Kind::Xen => return xen(&cache, &kernel),
        _ => {}
    }
    let (name, image) = match arguments.kind {
        Kind::Shell | Kind::Iso | Kind::Memtest | Kind::Xen => ("shell", Initramfs::new(&kernel)?),
        Kind::KvmClient => ("kvm-client", kvm_client(&kernel)?),
        Kind::Nested => {
            let guest = images::with_script(&kernel, WHERE)?;
            ("nested", images::nested(&cache, &kernel, guest, &format!("-m 256M {}", arguments.qemu_options))?)
        }
        Kind::NestedTwice => {
            let guest = images::with_script(&kernel, WHERE)?;
            let guest = images::nested(&cache, &kernel, guest, "-m 256M")?;
            let options = format!("-m 768M {}", arguments.qemu_options);
            ("nested-twice", images::nested(&cache, &kernel, guest, &options)?)
        }
        Kind::NestedKvmClient => {
            let options = format!("-m 256M {}", arguments.qemu_options);
            ("nested-kvm-client", images::nested(&cache, &kernel, kvm_client(&kernel)?, &options)?)
        }
        Kind::Getpid => {
            let mut image = images::with_script(&kernel, "/bin/getpid 1000000")?;
            image.file("bin/getpid", 0o755, &programs::build("getpid")?);
            ("getpid", image)
        }
    };
    let path = images::write(name, image)?;
    let run = if matches!(arguments.kind, Kind::Shell) { String::new() } else { format!(" vp.run={}", images::SCRIPT) };
    println!("--kernel {} --initrd {} --append 'console=ttyS0{run}'", kernel.image.display(), path.display());
    Ok(())
}

fn iso(cache: &Cache, kernel: &Kernel) -> Result<(), Error> {
    let initrd = images::write("shell", Initramfs::new(kernel)?)?;
    let script = "linux /vmlinuz console=ttyS0\ninitrd /initrd";
    let files = [IsoFile { path: "vmlinuz", source: &kernel.image }, IsoFile { path: "initrd", source: &initrd }];
    println!("--firmware seabios --cdrom {}", iso::grub(cache, "shell", script, &files)?.display());
    Ok(())
}

fn xen(cache: &Cache, kernel: &Kernel) -> Result<(), Error> {
    let dom0 = xen::dom0_with_guest(cache, kernel, images::with_script(kernel, WHERE)?)?;
    let iso = xen::grub(cache, "xen-guest", kernel, dom0, "768M")?;
    println!("--firmware seabios --cdrom {} --memory 1536M", iso.display());
    Ok(())
}

fn memtest(cache: &Cache) -> Result<(), Error> {
    let root = cache.packages("memtest86+", &["memtest86+"])?;
    let files = [IsoFile { path: "memtest", source: &root.join("boot/memtest86+x64.bin") }];
    let script = "linux /memtest console=ttyS0,115200";
    println!("--firmware seabios --cdrom {}", iso::grub(cache, "memtest", script, &files)?.display());
    Ok(())
}
