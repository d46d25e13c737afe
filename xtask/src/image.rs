//! `cargo xtask image`: the images of the tests as files, to boot by hand.

use clap::ValueEnum;
use guests::iso::{self, IsoFile};
use guests::{images, programs};
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
    /// Further options for the QEMU in the nested image.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    qemu_options: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let cache = Cache::of_user(|line| eprintln!("xtask: {line}"))?;
    let kernel = cache.kernel()?;
    match arguments.kind {
        Kind::Iso => return iso(&cache, &kernel),
        Kind::Memtest => return memtest(&cache),
        _ => {}
    }
    let (name, image) = match arguments.kind {
        Kind::Shell | Kind::Iso | Kind::Memtest => ("shell", Initramfs::new(&kernel)?),
        Kind::KvmClient => {
            let mut image = images::with_script(&kernel, "/bin/kvm_client")?;
            image.file("bin/kvm_client", 0o755, &programs::build("kvm_client")?);
            ("kvm-client", image)
        }
        Kind::Nested => {
            ("nested", images::nested(&cache, &kernel, "uname -a; head -4 /proc/cpuinfo", &arguments.qemu_options)?)
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

fn memtest(cache: &Cache) -> Result<(), Error> {
    let root = cache.packages("memtest86+", &["memtest86+"])?;
    let files = [IsoFile { path: "memtest", source: &root.join("boot/memtest86+x64.bin") }];
    let script = "linux /memtest console=ttyS0,115200";
    println!("--firmware seabios --cdrom {}", iso::grub(cache, "memtest", script, &files)?.display());
    Ok(())
}
