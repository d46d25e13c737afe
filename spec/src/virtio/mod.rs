//! Virtio 1.x (OASIS Virtual I/O Device 1.2).
pub mod block;
pub mod console;
pub mod net;
pub mod pci;
pub mod ring;

/// Device types (5).
pub mod device_type {
    /// Network card.
    pub const NET: u16 = 1;
    /// Block device.
    pub const BLOCK: u16 = 2;
    /// Console.
    pub const CONSOLE: u16 = 3;
    /// Entropy source.
    pub const RNG: u16 = 4;
    /// GPU.
    pub const GPU: u16 = 16;
    /// Input device.
    pub const INPUT: u16 = 18;
}

named_bits! {
    /// The device status (2.1).
    DeviceStatus(u8) {
        0 ACKNOWLEDGE "the guest has noticed the device";
        1 DRIVER "the guest knows how to drive it";
        2 DRIVER_OK "the driver is set up";
        3 FEATURES_OK "feature negotiation is complete";
        6 NEEDS_RESET "the device cannot go on without a reset";
        7 FAILED "the guest has given up on the device";
    }
}

named_bits! {
    /// Feature bits that do not belong to one device type (6).
    Feature(u64) {
        24 NOTIFY_ON_EMPTY "legacy: notify when the device runs out of buffers";
        27 ANY_LAYOUT "legacy: any descriptor layout";
        28 RING_INDIRECT_DESC "VIRTIO_F_INDIRECT_DESC: indirect descriptors";
        29 RING_EVENT_IDX "VIRTIO_F_EVENT_IDX: used_event and avail_event";
        32 VERSION_1 "VIRTIO_F_VERSION_1: this specification";
        33 ACCESS_PLATFORM "VIRTIO_F_ACCESS_PLATFORM: the device's accesses are translated";
        34 RING_PACKED "VIRTIO_F_RING_PACKED: packed virtqueues";
        35 IN_ORDER "VIRTIO_F_IN_ORDER: buffers are used in order";
        36 ORDER_PLATFORM "VIRTIO_F_ORDER_PLATFORM: platform memory ordering";
        37 SR_IOV "VIRTIO_F_SR_IOV";
        38 NOTIFICATION_DATA "VIRTIO_F_NOTIFICATION_DATA: extra data in notifications";
        40 RING_RESET "VIRTIO_F_RING_RESET: queues reset one by one";
    }
}
