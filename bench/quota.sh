# Sourced by benchmarks that give each node process a share of a core of its own (cgroup v1; needs root).

quota_root=/sys/fs/cgroup/cpu/troupe-bench-$$
quota_period_us=${quota_period_us:-100000}

# quota_begin PROGRAM: makes the file PROGRAM: $troupe, but a node goes to the group of its --name before it begins; not that
# of the undisturbed run of a drill, which may use what it can get.
quota_begin() {
  mkdir "$quota_root" 2>/dev/null && [ -f "$quota_root/cpu.cfs_quota_us" ] || {
    rmdir "$quota_root" 2>/dev/null || true
    echo "$0: cannot make CPU groups under /sys/fs/cgroup/cpu: this needs root and cgroup v1" >&2
    exit 1
  }
  cat >"$1" <<END
#!/bin/sh
before= name= undisturbed=
for word; do
  [ "\$before" != --name ] || name=\$word
  case "\$before \$word" in "--cluster "*/undisturbed/*) undisturbed=yes ;; esac
  before=\$word
done
[ -z "\$undisturbed" ] || name=
[ -z "\$name" ] || echo \$\$ >$quota_root/\$name/cgroup.procs
exec "$troupe" "\$@"
END
  chmod +x "$1"
}

# quota_set NAME SHARE: the group NAME may use SHARE thousandths of a core.
quota_set() {
  mkdir -p "$quota_root/$1"
  echo "$quota_period_us" >"$quota_root/$1/cpu.cfs_period_us"
  echo $((quota_period_us * $2 / 1000)) >"$quota_root/$1/cpu.cfs_quota_us"
}

# Ends the processes that are left in the groups, and removes these.
quota_end() {
  tries=0
  while [ "$tries" -lt 50 ] && [ -n "$(cat "$quota_root"/*/cgroup.procs 2>/dev/null)" ]; do
    # shellcheck disable=SC2046  # process ids are meant to be split
    kill -9 $(cat "$quota_root"/*/cgroup.procs) 2>/dev/null || true
    sleep 0.1
    tries=$((tries + 1))
  done
  for folder in "$quota_root"/*/ "$quota_root"; do [ ! -d "$folder" ] || rmdir "$folder" 2>/dev/null || true; done
}
