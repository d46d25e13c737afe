//! Page requests and their responses (VT-d, 7.4 to 7.7).

/// A page request descriptor in the page request queue, 32 bytes; by quadword.
pub mod request {
    /// Size in bytes.
    pub const SIZE: u64 = 32;
    /// Quadword 0, bits 7:0: the type, page request.
    pub const TYPE: u64 = 1;
    /// Quadword 0, bit 8: the request has a PASID.
    pub const PASID_PRESENT: u64 = 1 << 8;
    /// Quadword 0: position of the source id, bits 31:16.
    pub const SOURCE_SHIFT: u32 = 16;
    /// Quadword 0: position of the PASID, bits 51:32.
    pub const PASID_SHIFT: u32 = 32;
    /// Quadword 0, bit 52: execute permission is requested.
    pub const EXECUTE: u64 = 1 << 52;
    /// Quadword 0, bit 53: with supervisor privilege.
    pub const PRIVILEGED: u64 = 1 << 53;
    /// Quadword 1, bit 0: read permission is requested.
    pub const READ: u64 = 1 << 0;
    /// Quadword 1, bit 1: write permission is requested.
    pub const WRITE: u64 = 1 << 1;
    /// Quadword 1, bit 2: the last request of its group.
    pub const LAST: u64 = 1 << 2;
    /// Quadword 1: position of the group's index, bits 11:3.
    pub const GROUP_SHIFT: u32 = 3;
}

/// A page group response descriptor in the invalidation queue; by quadword.
pub mod response {
    /// Quadword 0, bit 4: the response has a PASID.
    pub const PASID_PRESENT: u64 = 1 << 4;
    /// Quadword 0: position of the response code, bits 15:12.
    pub const CODE_SHIFT: u32 = 12;
    /// Code: success.
    pub const SUCCESS: u8 = 0;
    /// Code: invalid request.
    pub const INVALID: u8 = 1;
    /// Code: failure.
    pub const FAILURE: u8 = 15;
    /// Quadword 1: position of the group's index, bits 11:3.
    pub const GROUP_SHIFT: u32 = 3;
}
