# In the machine, as root: the tests of limits, as root and as a user, in the places where users start things.
cd /var/cache/nbhull-vm/share
share=$(pwd)
user=tester
echo "FACT Linux $(uname -r), systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), Debian $(cat /etc/debian_version)"
echo "FACT cgroup v2 with $(cat /sys/fs/cgroup/cgroup.controllers)"
mkdir -p /srv/quotas && mount -o prjquota /dev/vdc /srv/quotas && chmod 0777 /srv/quotas

# One run: who, where it is said to run, and the command that starts a shell line there.
run() {
    who=$1 where=$2
    shift 2
    folder=$(mktemp -d) && chmod 0777 "$folder"
    cp -r "$share/tree" "$folder/tree" && chown -R "$who" "$folder"
    cat >"$folder/line.sh" <<END
cd $folder/tree
export NBHULL_TEST_QUOTAS=/srv/quotas TERM=dumb LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
# before Linux 6.3 a tmpfs such as /run cannot be idmapped, as root's folders must be
[ "$who" != root ] || { export XDG_RUNTIME_DIR=/var/lib/nbhull-run; mkdir -p -m 0700 /var/lib/nbhull-run; }
$share/venv/bin/python -m nbhull.runtime.cli doctor >doctor.txt
NBHULL_HOME=/srv/quotas/none $share/venv/bin/python -m nbhull.runtime.cli doctor | grep "disk quotas" >>doctor.txt
sed -n -e "s/^. cgroups */DOCTOR $who, $where: /p" -e "s/^. disk quotas */DOCTOR $who, $where: disk quotas: /p" doctor.txt
$share/venv/bin/python -m pytest -q -p no:cacheprovider --timeout 600 $(cat "$share/arguments")
END
    "$@" sh "$folder/line.sh" >"$folder/log" 2>&1
    status=$?
    cat "$folder/log"
    summary=$(grep -E '(passed|failed|error|no tests ran|skipped,)' "$folder/log" | tail -n 1 | tr -d '="')
    echo "RESULT {\"who\": \"$who\", \"where\": \"$where\", \"status\": $status, \"summary\": \"$summary\"}"
}

login() {
    runuser -l $user -c "$*"
}

until [ -S "/run/user/$(id -u $user)/bus" ]; do sleep 0.2; done
run root "a system service" systemd-run --quiet --pipe --wait --collect
run $user "a service of the user's own systemd" systemd-run --quiet --pipe --wait --collect --user --machine="$user@"
run $user "a login session" login
echo DONE
