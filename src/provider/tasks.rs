//! How many processes and threads there may be: of this user, and of this service.

use std::{fs, path::Path};

/// Tasks that are the host's whatever its providers do: its own threads (a dozen and one for each core) and the supervisors
/// (one or two threads each), with room for both to grow.
pub const HOST_TASKS: u64 = 64;

/// The `RLIMIT_NPROC` of a provider that runs as `user`, so that it can start `processes` more than that user has now:
/// the kernel counts all processes and threads of a user. Where the service may have a known number of tasks,
/// [`HOST_TASKS`] of them stay out of reach. 0, no limit, stays 0 where that number is not known.
pub fn user_limit(user: u32, processes: u64) -> u64 {
    let most = service_limit().map(|limit| limit.saturating_sub(HOST_TASKS).max(1));
    let wanted = (processes > 0).then(|| used_by(user).saturating_add(processes));
    match (wanted, most) {
        (Some(wanted), Some(most)) => wanted.min(most),
        (wanted, most) => wanted.or(most).unwrap_or(0),
    }
}

/// Processes and threads of `user` that `/proc` shows.
fn used_by(user: u32) -> u64 {
    let own = user.to_string();
    let mut used = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
        if field("Uid:") == Some(&*own) {
            used += field("Threads:").and_then(|number| number.parse::<u64>().ok()).unwrap_or(1);
        }
    }
    used
}

/// How many tasks this process' control group and those above it may have together.
pub fn service_limit() -> Option<u64> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    folders(&mounts, &groups).iter().filter_map(|folder| least(Path::new(folder))).min()
}

/// The folders of this process' group, in the unified tree and in that of the controller `pids`.
fn folders(mounts: &str, groups: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut words = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (words.next(), words.next()) else { continue };
        let is_unified = controllers.is_empty();
        if !is_unified && !controllers.split(',').any(|one| one == "pids") {
            continue;
        }
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
            let is_it = if is_unified {
                kind == "cgroup2"
            } else {
                kind == "cgroup" && options.split(',').any(|one| one == "pids")
            };
            is_it.then_some(place)
        });
        found.extend(mount.map(|mount| format!("{mount}{}", path.trim_end_matches('/'))));
    }
    found
}

/// The least `pids.max` of `folder` and those above it.
fn least(folder: &Path) -> Option<u64> {
    folder.ancestors().filter_map(|folder| fs::read_to_string(folder.join("pids.max")).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_that_count_tasks_are_found() {
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(folders(unified, "0::/system.slice/x.service\n"), ["/sys/fs/cgroup/system.slice/x.service"]);
        let mixed = "cgroup /c/cpu cgroup rw,cpu 0 0\ncgroup /c/pids cgroup rw,pids 0 0\ncgroup2 /c/u cgroup2 rw 0 0\n";
        assert_eq!(folders(mixed, "8:pids:/a\n4:cpu:/b\n0::/\n"), ["/c/pids/a", "/c/u"]);
        assert!(folders("proc /proc proc rw 0 0\n", "0::/a\n").is_empty());
    }

    #[test]
    fn the_least_limit_of_all_above_counts() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("service/host");
        fs::create_dir_all(&below).unwrap();
        fs::write(folder.path().join("service/pids.max"), "512\n").unwrap();
        fs::write(below.join("pids.max"), "max\n").unwrap();
        assert_eq!(least(&below), Some(512));
        fs::write(folder.path().join("pids.max"), "100\n").unwrap();
        assert_eq!(least(&below), Some(100));
    }

    #[test]
    fn a_user_may_have_what_it_has_and_as_much_more() {
        let own = rustix::process::getuid().as_raw();
        assert!(used_by(own) > 0);
        assert_eq!(used_by(3_999_999_999), 0, "nobody has that number");
        if service_limit().is_none() {
            assert!(user_limit(own, 64) > 64);
        }
    }
}
