//! An image made on the spot: busybox and a few files, in the archive format that every engine loads.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the image is called once it is loaded.
pub const IMAGE: &str = "localhost/floe-test:1";

/// Makes the root file system and its archive in `directory`; `None` where no static busybox is installed.
#[must_use]
pub fn archive(directory: &Path) -> Option<PathBuf> {
    let busybox = crate::host::program("busybox")?;
    let directory = directory.join("image");
    let root = directory.join("rootfs");
    furnish(&root, &busybox);
    let works = Command::new("chroot")
        .arg(&root)
        .args(["/bin/busybox", "true"])
        .status();
    if !works.expect("execute chroot").success() {
        return None;
    }
    let layer = directory.join("layer.tar");
    tar(&layer, &root, &["."]);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "FROM_IMAGE=yes"],
            "Cmd": ["sh"]
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        "history": [{"created_by": "floe's tests"}]
    });
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}
    ]);
    fs::write(directory.join("config.json"), config.to_string()).expect("image configuration");
    fs::write(directory.join("manifest.json"), manifest.to_string()).expect("image manifest");
    let archive = directory.join("image.tar");
    tar(
        &archive,
        &directory,
        &["manifest.json", "config.json", "layer.tar"],
    );
    Some(archive)
}

fn furnish(root: &Path, busybox: &Path) {
    for name in [
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "sys",
        "tmp",
        "home/guest",
        "www",
        "data",
    ] {
        let path = root.join(name);
        fs::create_dir_all(&path).expect("directory in the image");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox in the image");
    let list = Command::new(busybox)
        .arg("--list")
        .output()
        .expect("execute busybox");
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).expect("link to busybox");
        }
    }
    let files = [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\nwheel:x:10:guest\nguest:x:1000:\n"),
        ("www/index.html", "drift ice\n"),
        ("data/seed", "from the image\n"),
    ];
    for (path, content) in files {
        fs::write(root.join(path), content).expect("file in the image");
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o644)).expect("chmod");
    }
}

fn tar(archive: &Path, directory: &Path, names: &[&str]) {
    let status = Command::new("tar")
        .args([
            "--create",
            "--numeric-owner",
            "--owner=0",
            "--group=0",
            "--file",
        ])
        .arg(archive)
        .arg("--directory")
        .arg(directory)
        .args(names)
        .status();
    assert!(
        status.expect("execute tar").success(),
        "tar {}",
        archive.display()
    );
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum")
        .arg(file)
        .output()
        .expect("execute sha256sum");
    let text = String::from_utf8(output.stdout).expect("sha256sum prints ASCII");
    text.split(' ').next().expect("a sum").to_owned()
}
