#!/bin/sh
# Applies what udhcpc was given: $1 is the event, the values are in the environment.
case $1 in
deconfig) ip link set "$interface" up ;;
bound | renew)
    ip addr add "$ip/${mask:-24}" dev "$interface"
    for gateway in $router; do ip route add default via "$gateway" dev "$interface"; done
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
