//! The images that the command has in it; its build script has built them.

use crate::Error;

macro_rules! image {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

const HYPERVISOR: &[u8] = image!("hypervisor");
const GUESTS: [(&str, &[u8]); 10] = [
    ("real-mode", image!("real-mode")),
    ("protected-mode", image!("protected-mode")),
    ("long-mode", image!("long-mode")),
    ("hostile", image!("hostile")),
    ("heartbeat", image!("heartbeat")),
    ("exits", image!("exits")),
    ("tpr", image!("tpr")),
    ("compute", image!("compute")),
    ("packets", image!("packets")),
    ("edu", image!("edu")),
];

/// The hypervisor.
///
/// # Errors
/// When this build has none.
pub fn hypervisor() -> Result<&'static [u8], Error> {
    present(HYPERVISOR)
}

/// The built-in guest `name`.
///
/// # Errors
/// When there is none of that name, or this build has none.
pub fn guest(name: &str) -> Result<&'static [u8], Error> {
    let Some((_, image)) = GUESTS.into_iter().find(|(guest, _)| *guest == name) else {
        let names: Vec<_> = GUESTS.iter().map(|(name, _)| *name).collect();
        return Err(Error::new(format!("there is no built-in guest {name}; there are: {}", names.join(", "))));
    };
    present(image)
}

fn present(image: &'static [u8]) -> Result<&'static [u8], Error> {
    if image.is_empty() {
        return Err(Error::new(
            "this build has no hypervisor in it: add Rust's target x86_64-unknown-linux-gnu and a linker for it, and build again",
        ));
    }
    Ok(image)
}
