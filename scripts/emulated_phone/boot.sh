# Runs inside the phone's namespaces (unshare): mounts the phone's root and becomes its init.
# Usage: boot.sh ROOT IMAGE INSTANCE DATA_SIZE DATA_MODE CORES PIN
set -e
root=$1 image=$2 instance=$3 data_size=$4 data_mode=$5 cores=$6 pin=$7

# aarch64 programs run through qemu in here and nowhere else: a user namespace has a binfmt_misc of its own (Linux 6.7).
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":aarch64:M::$magic:$mask:$image/qemu-aarch64:F" > /proc/sys/fs/binfmt_misc/register

mount -t tmpfs -o mode=755 phone "$root"
mkdir -p "$root"/{system,apex,proc,sys,dev,data}
mount --bind "$image/system" "$root/system"
mount --bind "$image/apex" "$root/apex"
for part in system apex; do mount -o remount,bind,ro "$root/$part"; done
mount --bind "$instance/etc" "$root/system/etc"
# adbd starts /bin/sh. As on Android that is the system's own, or on an odd phone one that first says something.
if [ -e "$instance/etc/banner" ]; then
  mkdir "$root/bin"
  printf '#!/system/bin/sh\n/system/bin/cat /system/etc/banner\nexec /system/bin/sh "$@"\n' > "$root/bin/sh"
  chmod 755 "$root/bin/sh"
else
  ln -s /system/bin "$root/bin"
fi
mount -t proc proc "$root/proc"
for file in cpuinfo meminfo; do mount --bind "$instance/etc/$file" "$root/proc/$file"; done
mount --bind "$instance/sys" "$root/sys"
mount -t tmpfs -o "size=$data_size,mode=771" data "$root/data"
mkdir -p "$root/data/local/tmp"
[ "$data_mode" = rw ] || mount -o remount,ro "$root/data"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null zero random urandom full tty; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

exec env -i PATH=/system/bin LD_LIBRARY_PATH=/system/lib64 ANDROID_ROOT=/system ANDROID_DATA=/data HOME=/data/local/tmp TMPDIR=/data/local/tmp \
  QEMU_CPU="$CPU" ADBD_PORT="$ADBD_PORT" \
  "$image/init" "$root" "$cores" "$pin" "$instance/timeline" \
  /apex/adbd/lib/ld-linux-x86-64.so.2 --preload /apex/adbd/lib/loopback.so --library-path /apex/adbd/lib /apex/adbd/bin/adbd
