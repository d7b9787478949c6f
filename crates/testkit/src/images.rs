//! Real images for tests, made of programs that Debian installed on this machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use warren_image::{ImageBuilder, ImageRef};

/// Debian's statically linked busybox (package busybox-static).
const BUSYBOX: &str = "/bin/busybox";
/// Debian package nginx-core.
const NGINX: &str = "/usr/sbin/nginx";
/// Debian package redis-server.
const REDIS: &str = "/usr/bin/redis-server";
/// Of Debian's essential package perl-base: busybox has nothing that answers datagrams.
const PERL: &str = "/usr/bin/perl";
/// Socket calls with bare numbers (`AF_INET` 2, `SOCK_DGRAM` 2), so that no module is needed.
const UDP_ECHO: &str = "socket(S, 2, 2, 0) or die \"socket: $!\"; \
    bind(S, pack(\"SnNx8\", 2, $ARGV[0], 0)) or die \"bind: $!\"; \
    while (defined($peer = recv(S, $text, 2048, 0))) { send(S, $text, 0, $peer) }";
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TAR_BLOCK_BYTES: usize = 512;

/// Accounts inside the images.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\n\
    redis:x:999:999:redis:/data:/bin/false\n\
    nobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nredis:x:999:\nnogroup:x:65534:\n";

const NGINX_CONF: &str = "user www-data;\nworker_processes 1;\ndaemon off;\npid /run/nginx.pid;\n\
    error_log stderr notice;\nevents { worker_connections 64; }\n\
    http {\n  access_log /dev/stdout;\n  types { text/html html; text/plain txt; }\n\
    \x20 server { listen 80; root /usr/share/nginx/html; }\n}\n";

const REDIS_CONF: &str = "bind 0.0.0.0\nport 6379\nprotected-mode no\ndaemonize no\nlogfile \"\"\ndir /data\n\
    save \"\"\nappendonly yes\nappendfsync always\n";

/// What official images of redis do as well: hand the volume over, read the password that only root
/// may read, and go on as an ordinary user.
const REDIS_ENTRY: &str = "#!/bin/sh\nset -e\nchown redis:redis /data\npassword=\n\
    if [ -n \"$REDIS_PASSWORD_FILE\" ]; then password=$(cat \"$REDIS_PASSWORD_FILE\"); fi\n\
    exec start-stop-daemon -S -c redis:redis -x /usr/bin/redis-server -- /etc/redis/redis.conf --requirepass \"$password\"\n";

/// Text that the nginx image serves at `/`.
pub const NGINX_PAGE: &str = "served by nginx from Debian";

/// Writes `test/busybox:latest` as a docker-save archive below `dir`; returns its path. Without a
/// command it runs `sh`.
///
/// # Panics
/// When busybox is not installed or the archive cannot be written.
#[must_use]
pub fn busybox(dir: &Path) -> String {
    let mut builder = base();
    builder.cmd(["sh"]);
    save(&builder, dir, "busybox")
}

/// Writes `test/nginx:latest` below `dir`; returns the path of the archive. It listens on port 80 and
/// serves [`NGINX_PAGE`].
///
/// # Panics
/// When nginx is not installed or the archive cannot be written.
#[must_use]
pub fn nginx(dir: &Path) -> String {
    let mut builder = base();
    program(&mut builder, NGINX, "nginx-core");
    builder
        .add_dir("/var/lib/nginx", 0o755)
        .add_dir("/var/log/nginx", 0o755)
        .add_file("/etc/nginx/nginx.conf", NGINX_CONF, 0o644)
        .add_file("/usr/share/nginx/html/index.html", NGINX_PAGE, 0o644)
        .entrypoint([NGINX, "-c", "/etc/nginx/nginx.conf"])
        .expose("80/tcp")
        .stop_signal("SIGQUIT");
    save(&builder, dir, "nginx")
}

/// Writes `test/redis:latest` below `dir`; returns the path of the archive. It listens on port 6379,
/// keeps its data in `/data`, and wants the password in the file that `REDIS_PASSWORD_FILE` names.
///
/// # Panics
/// When redis is not installed or the archive cannot be written.
#[must_use]
pub fn redis(dir: &Path) -> String {
    let mut builder = base();
    program(&mut builder, REDIS, "redis-server");
    builder
        .add_dir("/data", 0o755)
        .add_file("/etc/redis/redis.conf", REDIS_CONF, 0o644)
        .add_file("/entrypoint.sh", REDIS_ENTRY, 0o755)
        .entrypoint(["/entrypoint.sh"])
        .expose("6379/tcp")
        .volume("/data");
    save(&builder, dir, "redis")
}

/// Writes `test/udp-echo:latest` below `dir`; returns the path of the archive. It sends every datagram
/// back that comes to the port that its first argument names (53 if there is none).
///
/// # Panics
/// When perl is not installed or the archive cannot be written.
#[must_use]
pub fn udp_echo(dir: &Path) -> String {
    let mut builder = base();
    program(&mut builder, PERL, "perl-base");
    builder
        .entrypoint([PERL, "-e", UDP_ECHO])
        .cmd(["53"])
        .expose("53/udp");
    save(&builder, dir, "udp-echo")
}

/// A tar archive with one file of this path, whatever the path is: what a hostile archive holds.
///
/// # Panics
/// When the path does not fit a plain header (100 bytes).
#[must_use]
pub fn archive_with_path(path: &str, data: &[u8]) -> Vec<u8> {
    assert!(path.len() <= 100, "{path}: too long for a plain tar header");
    let mut header = [0_u8; TAR_BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, path.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000000\0");
    // While the sum is taken its own field counts as spaces.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = header.to_vec();
    out.extend_from_slice(data);
    out.resize(
        out.len().next_multiple_of(TAR_BLOCK_BYTES) + 2 * TAR_BLOCK_BYTES,
        0,
    );
    out
}

/// A small Linux: busybox under all its names, accounts, `/tmp`.
fn base() -> ImageBuilder {
    let mut builder = ImageBuilder::new();
    builder
        .add_file("/bin/busybox", real(BUSYBOX, "busybox-static"), 0o755)
        .add_dir("/tmp", 0o1777)
        .add_dir("/root", 0o700)
        .add_dir("/run", 0o755)
        .add_file("/etc/passwd", PASSWD, 0o644)
        .add_file("/etc/group", GROUP, 0o644)
        .env("PATH", SEARCH_PATH);
    for applet in lines_of(Command::new(BUSYBOX).arg("--list")) {
        if applet != "busybox" {
            builder.add_symlink(&format!("/bin/{applet}"), "busybox");
        }
    }
    builder
}

/// Adds a program with its shared libraries and the loader.
fn program(builder: &mut ImageBuilder, path: &str, package: &str) {
    builder.add_file(path, real(path, package), 0o755);
    for library in libraries(path) {
        builder.add_file(&library, real(&library, "of the libraries"), 0o755);
    }
}

/// Paths of the shared libraries and the loader, as the loader looks for them.
fn libraries(program: &str) -> BTreeSet<String> {
    let lines = lines_of(Command::new("ldd").arg(program));
    let paths = lines
        .iter()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(str::to_owned).collect()
}

/// The file behind a path that may be a link.
fn real(path: &str, package: &str) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|e| {
        panic!("{path}: {e} (Debian package {package}; `cargo xtask packages` installs it)")
    })
}

fn lines_of(command: &mut Command) -> Vec<String> {
    let out = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

fn save(builder: &ImageBuilder, dir: &Path, name: &str) -> String {
    let path = dir.join(format!("{name}.tar"));
    let file = File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let reference: ImageRef = format!("test/{name}:latest")
        .parse()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    builder
        .write_docker_archive(file, &[reference])
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path.display().to_string()
}
