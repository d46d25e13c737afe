//! Builds the hypervisor and the guests of its demo, which the command has in it: `vanderpool run` needs nothing but the command.

use image::Layout;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Package, binary, layout.
const IMAGES: [(&str, &str, Layout); 11] = [
    ("metal", "hypervisor", Layout::Small),
    ("demo", "real-mode", Layout::RealMode),
    ("demo", "protected-mode", Layout::Small),
    ("demo", "long-mode", Layout::Small),
    ("demo", "hostile", Layout::Small),
    ("demo", "heartbeat", Layout::Small),
    ("demo", "exits", Layout::Small),
    ("demo", "tpr", Layout::Small),
    ("demo", "compute", Layout::Small),
    ("demo", "packets", Layout::Small),
    ("demo", "edu", Layout::Small),
];

/// What the images are made of.
const SOURCES: [&str; 8] =
    ["bare", "hypervisor", "guests/demo", "spec/src", "devices/src", "devices/Cargo.toml", "Cargo.toml", "Cargo.lock"];

fn main() {
    let root = image::workspace();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for (package, name, layout) in IMAGES {
        let to = out.join(name);
        match image::build(package, name, &target_directory(&out), layout) {
            Ok(file) => {
                fs::copy(file, &to).unwrap_or_else(|e| panic!("cannot write {}: {e}", to.display()));
            }
            // On a PC this cannot be for want of a target: something is wrong.
            Err(why) if image::ON_A_PC => panic!("{why}"),
            Err(_) => {
                println!(
                    "cargo::warning=no {name} in this build: `rustup target add {}` and a linker for it are missing",
                    image::TARGET
                );
                fs::write(&to, []).unwrap_or_else(|e| panic!("cannot write {}: {e}", to.display()));
            }
        }
    }
}

/// A target directory beside those of the profiles: below the one in use, so that it goes when that goes, and not locked by the cargo that
/// waits for us.
fn target_directory(out: &Path) -> PathBuf {
    // target/PROFILE/build/PACKAGE/out
    out.ancestors().nth(4).unwrap_or(out).join("image")
}
