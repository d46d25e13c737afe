#!/bin/busybox sh
# The first program of the initramfs: mounts, modules, network, then a shell or the script named by vp.run=.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
export HOME=/root PATH=/bin TERM="${TERM:-linux}"

run= kvm=yes net=yes
for word in $(cat /proc/cmdline); do
    case $word in
    vp.run=*) run=${word#vp.run=} ;;
    vp.kvm=*) kvm=${word#vp.kvm=} ;;
    vp.net=*) net=${word#vp.net=} ;;
    esac
done

# The drivers of the PCI functions first: they make the virtio devices, which have drivers of their own.
aliases=$(cat /sys/bus/pci/devices/*/modalias 2>/dev/null) && modprobe -qa $aliases
aliases=$(cat /sys/bus/virtio/devices/*/modalias 2>/dev/null) && modprobe -qa $aliases
if [ "$kvm" = yes ]; then
    if grep -qw vmx /proc/cpuinfo; then modprobe -q kvm_intel; elif grep -qw svm /proc/cpuinfo; then modprobe -q kvm_amd; fi
fi

ip link set lo up
if [ "$net" = yes ]; then
    for interface in /sys/class/net/eth*; do
        [ -e "$interface" ] && udhcpc -q -n -f -t 5 -T 2 -i "${interface##*/}" -s /etc/udhcpc.sh
    done
fi

echo "vanderpool: ready"
cd /root
if [ -n "$run" ]; then
    "$run"
    echo "vanderpool: status $?"
else
    setsid cttyhack sh
fi
sync
poweroff -f
