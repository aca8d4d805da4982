//! What the kernel must give: io_uring, sealed memory, pidfds; and whether a container takes some of it away.

use super::{Check, Host, fine, not_applicable, problem, system, unknown, warning};

const AREA: &str = "kernel";

/// What was seen.
pub(super) struct Facts {
    /// `/proc/sys/kernel/osrelease`.
    release: Option<String>,
    io_uring: Ring,
    /// Opening a pidfd: what the kernel said if it refused.
    pidfd: Result<(), String>,
    containment: Containment,
}

/// A ring was set up, or not.
pub(super) struct Ring {
    /// Its mode, or what the kernel said.
    tried: Result<String, String>,
    /// `/proc/sys/kernel/io_uring_disabled`: 0 for all, 1 for the privileged and a group, 2 for nobody.
    disabled: Option<u8>,
}

/// What stands between this process and the kernel.
pub(super) struct Containment {
    /// What tells of a container.
    container: Option<String>,
    /// Mode of seccomp: 0 none, 1 strict, 2 filter.
    seccomp: Option<u8>,
}

impl Facts {
    pub(super) fn look(host: &Host) -> Facts {
        Facts {
            release: host.text("proc/sys/kernel/osrelease"),
            io_uring: Ring {
                tried: quintet_transport::probe_io_uring().map_err(|error| error.to_string()),
                disabled: host.value("proc/sys/kernel/io_uring_disabled"),
            },
            pidfd: system::pidfd().map_err(|error| error.to_string()),
            containment: Containment {
                container: container(host),
                seccomp: host
                    .line("proc/self/status", "Seccomp")
                    .and_then(|mode| mode.parse().ok()),
            },
        }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        vec![
            version(self.release.as_deref()),
            io_uring(&self.io_uring, &self.containment),
            pidfd(&self.pidfd),
            containment(&self.containment),
        ]
    }
}

/// What says that this is a container, if anything does.
fn container(host: &Host) -> Option<String> {
    let marks = [
        (".dockerenv", "docker"),
        ("run/.containerenv", "podman"),
        ("var/run/secrets/kubernetes.io", "kubernetes"),
    ];
    if let Some(name) = host.text("run/systemd/container") {
        return Some(name);
    }
    if let Some((_, name)) = marks.iter().find(|(path, _)| host.has(path)) {
        return Some((*name).to_owned());
    }
    let groups = host.text("proc/self/cgroup")?;
    let names = ["docker", "kubepods", "lxc", "libpod", "containerd"];
    names.iter().find(|name| groups.contains(**name)).map(|name| (*name).to_owned())
}

fn version(release: Option<&str>) -> Check {
    let parsed = release.and_then(|release| {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse::<u32>().ok()?, numbers.next()?.parse::<u32>().ok()?))
    });
    let said = release.unwrap_or_default();
    let upgrade = "boot a kernel of 6.7 or later".to_owned();
    let judgement = match parsed {
        None => unknown("/proc/sys/kernel/osrelease cannot be read"),
        Some(version) if version < (5, 3) => {
            problem(format!("{said}: older than 5.3, without pidfds"), upgrade)
        }
        Some(version) if version < (5, 11) => {
            warning(format!("{said}: io_uring cannot wait with a time-out before 5.11"), upgrade)
        }
        Some(version) if version < (6, 1) => {
            warning(format!("{said}: io_uring without DEFER_TASKRUN before 6.1"), upgrade)
        }
        Some(version) if version < (6, 7) => warning(
            format!(
                "{said}: io_uring without futexes before 6.7; a death on this host is told by pidfd, some milliseconds later"
            ),
            upgrade,
        ),
        Some(_) => fine(said),
    };
    let why =
        "the transport sleeps in one io_uring call and is told of deaths by pidfds and futexes";
    Check::new(AREA, "version", why, judgement)
}

fn io_uring(ring: &Ring, around: &Containment) -> Check {
    let judgement = match (&ring.tried, ring.disabled) {
        (Ok(mode), _) => fine(mode.clone()),
        (Err(said), Some(2)) => warning(
            format!("refused ({said}): kernel.io_uring_disabled is 2"),
            "sysctl -w kernel.io_uring_disabled=0, and the same line in /etc/sysctl.d",
        ),
        (Err(said), Some(1)) => warning(
            format!("refused ({said}): kernel.io_uring_disabled is 1"),
            "sysctl -w kernel.io_uring_disabled=0, or give quintetd's user the group of kernel.io_uring_group",
        ),
        (Err(said), _) if around.seccomp == Some(2) => warning(
            format!("refused ({said}) by a seccomp filter"),
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile",
        ),
        (Err(said), _) => warning(
            format!("refused ({said})"),
            "use a kernel of 5.11 or later, with CONFIG_IO_URING",
        ),
    };
    let why = "without it a node waits in ppoll, which is right too but wakes more often and later";
    Check::new(AREA, "io_uring", why, judgement)
}

fn pidfd(tried: &Result<(), String>) -> Check {
    let judgement = match tried {
        Ok(()) => fine("can be opened"),
        Err(said) => problem(
            format!("refused ({said})"),
            "use a kernel of 5.3 or later, and allow pidfd_open in the container's seccomp profile",
        ),
    };
    let why = "a peer on the same host is linked by shared memory only if its death can be watched";
    Check::new(AREA, "pidfd", why, judgement)
}

fn containment(around: &Containment) -> Check {
    let seccomp = match around.seccomp {
        Some(0) => "no seccomp filter",
        Some(1) => "seccomp in strict mode",
        Some(_) => "a seccomp filter",
        None => "seccomp not told",
    };
    let judgement = match (&around.container, around.seccomp) {
        (Some(name), _) => fine(format!("in a container ({name}), {seccomp}")),
        (None, Some(0)) => not_applicable(format!("no container, {seccomp}")),
        (None, None) => unknown("/proc/self/status cannot be read"),
        (None, Some(_)) => fine(format!("no container, {seccomp}")),
    };
    let why =
        "nodes in different containers of a host meet by UDP unless they share a network namespace";
    Check::new(AREA, "container", why, judgement)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, *};
    use super::super::host::plant;
    use super::*;

    #[test]
    fn versions_are_judged_by_what_came_with_them() {
        let verdict = |release| version(Some(release)).verdict;
        for (release, expected) in [
            ("4.19.0-21-amd64", Problem),
            ("5.10.0", Warning),
            ("5.15.0-generic", Warning),
            ("6.6.1", Warning),
            ("6.7", Ok),
            ("6.18.44-fc", Ok),
            ("10.0.1", Ok),
        ] {
            assert_eq!(verdict(release), expected, "{release}");
        }
        assert_eq!((verdict("strange"), version(None).verdict), (Unknown, Unknown));
        assert!(version(Some("5.10.0")).found.contains("5.11"));
    }

    fn ring(disabled: Option<u8>, seccomp: u8) -> Check {
        let tried = Err("Operation not permitted".to_owned());
        let around = Containment { container: None, seccomp: Some(seccomp) };
        io_uring(&Ring { tried, disabled }, &around)
    }

    #[test]
    fn a_refused_ring_is_blamed_on_what_refused_it() {
        let fix = |check: Check| {
            assert_eq!(check.verdict, Warning);
            check.fix.unwrap()
        };
        assert!(fix(ring(Some(2), 2)).contains("io_uring_disabled=0"));
        assert!(fix(ring(Some(1), 0)).contains("io_uring_group"));
        assert!(fix(ring(Some(0), 2)).contains("seccomp profile"));
        assert!(fix(ring(None, 0)).contains("CONFIG_IO_URING"));
        let around = Containment { container: None, seccomp: Some(2) };
        let good = Ring { tried: std::result::Result::Ok("plain".into()), disabled: Some(0) };
        assert_eq!(io_uring(&good, &around).verdict, Ok);
    }

    #[test]
    fn a_kernel_without_pidfds_is_a_problem() {
        assert_eq!(pidfd(&Err("Function not implemented".into())).verdict, Problem);
        assert_eq!(pidfd(&std::result::Result::Ok(())).verdict, Ok);
    }

    #[test]
    fn containers_are_known_by_their_marks() {
        let status = ("proc/self/status", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n");
        let seen = |files: &[(&str, &str)]| -> (Verdict, String) {
            let (_dir, host) = plant(files);
            let check = containment(&Facts::look(&host).containment);
            (check.verdict, check.found)
        };
        let docker = seen(&[(".dockerenv", ""), status]);
        assert_eq!(docker, (Ok, "in a container (docker), a seccomp filter".into()));
        let pods = seen(&[("proc/self/cgroup", "0::/kubepods/x"), status]);
        assert!(pods.1.contains("kubepods"), "{}", pods.1);
        assert_eq!(
            seen(&[("run/systemd/container", "lxc\n"), status]).1,
            "in a container (lxc), a seccomp filter"
        );
        assert_eq!(seen(&[("proc/self/status", "Seccomp:\t0\n")]).0, NotApplicable);
        assert_eq!(seen(&[]).0, Unknown);
    }
}
