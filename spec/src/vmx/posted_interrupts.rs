//! The posted-interrupt descriptor, and the entries of the PID-pointer table (SDM Vol. 3C, 30.1.6 and 30.6).
//!
//! The descriptor is 64 bytes: first the 256 posted-interrupt requests, a bit for each vector, then the control quadword.

/// Offset of the quadword with the notification's fields, bits 319:256 of the descriptor.
pub const CONTROL: u64 = 32;
/// ON, outstanding notification (bit 256 of the descriptor).
pub const OUTSTANDING: u64 = 1 << 0;
/// SN, suppress notification (bit 257).
pub const SUPPRESS: u64 = 1 << 1;
/// Position of NV, the notification vector, in the control quadword (bits 279:272).
pub const NOTIFICATION_VECTOR_SHIFT: u32 = 16;
/// Position of NDST, the notification destination, in the control quadword (bits 319:288). In xAPIC mode its bits 15:8 are the APIC id.
pub const DESTINATION_SHIFT: u32 = 32;

/// An entry of the PID-pointer table: bit 0, the pointer is valid.
pub const POINTER_VALID: u64 = 1 << 0;
/// An entry of the PID-pointer table: bits 5:0, of which 5:1 are reserved. The others are the descriptor's address.
pub const POINTER_FLAGS: u64 = 0x3f;
