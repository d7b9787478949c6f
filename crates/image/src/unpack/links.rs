//! Hard links, to files of the same layer or of lower ones.

use super::*;

impl Unpacker<'_> {
    pub(super) fn hard_link(&mut self, dir: &Rc<Dir>, name: &[u8], entry: &Entry) -> Result<()> {
        let mut target = entry_names(self.archive, &entry.link)?;
        let Some(target_name) = target.pop() else {
            return Err(self.bad(&entry.path, "it is a hard link to the root directory"));
        };
        let target_dir = self.dir(&target, entry)?;
        let same = target_dir.names == dir.names && target_name == name;
        let place = self.place(&target_dir, &target_name);
        match child(&target_dir.fd, &target_name).at("cannot open", &place)? {
            Child::Dir(_) => return Err(self.bad(&entry.path, "it is a hard link to a directory")),
            Child::Other(stat) if is_whiteout(&stat) => {
                return Err(self.bad(&entry.path, "it is a hard link to a deleted file"));
            }
            Child::Other(_) | Child::Symlink(_) => {}
            Child::Missing => self.copy_up(&target_dir, &target_name, entry)?,
        }
        if same {
            return Ok(());
        }
        // Clearing the place may take the target's directory with it; then the link fails, named.
        self.clear(dir, name)?;
        linkat(
            &target_dir.fd,
            target_name.as_slice(),
            &dir.fd,
            name,
            AtFlags::empty(),
        )
        .at("cannot make hard link", &self.place(dir, name))
    }

    /// Copies a file of a lower layer into this one, so that it can be linked to.
    fn copy_up(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<()> {
        let names: Vec<Name> = dir.names.iter().cloned().chain([name.to_vec()]).collect();
        let place = self.place(dir, name);
        let found = self
            .lowers
            .find(&names)
            .at("cannot read the layers below", self.path)?;
        if let Some(Found::Symlink(target)) = &found {
            // Owner and time of a symbolic link mean nothing to those who follow it.
            return symlinkat(target.as_slice(), &dir.fd, name).at("cannot link", &place);
        }
        let Some(Found::Other {
            dir: lower_dir,
            name: lower_name,
            stat,
        }) = found
        else {
            let why = format!(
                "it is a hard link to {}, which is no file in this image",
                shown(&entry.link)
            );
            return Err(self.bad(&entry.path, why));
        };
        if file_type(&stat) != SFlag::S_IFREG {
            return Err(self.bad(
                &entry.path,
                "it is a hard link to a device of a lower layer",
            ));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut source = File::from(
            openat(&lower_dir, lower_name.as_slice(), flags, Mode::empty())
                .at("cannot open", &place)?,
        );
        let mut file = self.create_file(dir, name, &place)?;
        let mut copy = || -> io::Result<u64> {
            let bytes = io::copy(&mut source, &mut file)?;
            copy_metadata(&source, &stat, &file)?;
            let time = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
            futimens(&file, &time, &time)?;
            Ok(bytes)
        };
        self.done.bytes += copy().at("cannot copy", &place)?;
        self.sync_file(&file, &place)
    }
}
