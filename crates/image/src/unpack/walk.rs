//! Finding the directory of an entry, making the parts of its path that an archive left out.

use super::*;

impl Unpacker<'_> {
    /// Opens the directory `names`, making what is missing; links are followed inside the root.
    pub(super) fn dir(&mut self, names: &[Name], entry: &Entry) -> Result<Rc<Dir>> {
        if names.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((last, dir)) = &self.last
            && last == names
        {
            return Ok(Rc::clone(dir));
        }
        let mut queue: VecDeque<Name> = names.to_vec().into();
        let mut current = Rc::clone(&self.root);
        let mut links = 0;
        while let Some(name) = queue.pop_front() {
            if name == b".." {
                let parent = current
                    .names
                    .split_last()
                    .map_or(&[][..], |(_, rest)| rest)
                    .to_vec();
                current = self.reopen(&parent)?;
                continue;
            }
            match self.step(&current, &name, entry)? {
                Ok(next) => current = Rc::new(next),
                Err(target) => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(
                            self.bad(&entry.path, "its directory is a loop of symbolic links")
                        );
                    }
                    if target.starts_with(b"/") {
                        current = Rc::clone(&self.root);
                    }
                    for part in plain_names(&target).into_iter().rev() {
                        queue.push_front(part);
                    }
                }
            }
        }
        self.last = Some((names.to_vec(), Rc::clone(&current)));
        Ok(current)
    }

    /// Opens a directory that this unpacking has already opened or made.
    pub(super) fn reopen(&self, names: &[Name]) -> Result<Rc<Dir>> {
        let mut fd = self.root.fd.try_clone().at("cannot open", self.path)?;
        for name in names {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            fd = openat(&fd, name.as_slice(), flags, Mode::empty()).at("cannot open", self.path)?;
        }
        Ok(Rc::new(Dir {
            fd,
            names: names.to_vec(),
        }))
    }

    /// One component of a directory path: the directory, or the target of a link to follow.
    fn step(
        &mut self,
        current: &Dir,
        name: &[u8],
        entry: &Entry,
    ) -> Result<std::result::Result<Dir, Vec<u8>>> {
        let names: Vec<Name> = current
            .names
            .iter()
            .cloned()
            .chain([name.to_vec()])
            .collect();
        if name.len() > crate::limits::MAX_NAME_BYTES
            || joined(&names).len() > crate::limits::MAX_PATH_BYTES
        {
            return Err(self.bad(
                &entry.path,
                "its directory, with symbolic links followed, is too long a path",
            ));
        }
        match child(&current.fd, name).at("cannot open", &self.place(current, name))? {
            Child::Dir(fd) => return Ok(Ok(Dir { fd, names })),
            Child::Symlink(target) => return Ok(Err(target)),
            Child::Other(stat) if is_whiteout(&stat) => {
                unlinkat(&current.fd, name, UnlinkatFlags::NoRemoveDir)
                    .at("cannot replace", &self.place(current, name))?;
                let fd = self.make_dir(current, name, None, true)?;
                return Ok(Ok(Dir { fd, names }));
            }
            Child::Other(_) => {
                return Err(self.bad(&entry.path, "a part of its path is not a directory"));
            }
            Child::Missing => {}
        }
        match self
            .lowers
            .find(&names)
            .at("cannot read the layers below", self.path)?
        {
            Some(Found::Dir(lower)) => {
                let fd = self.make_dir(current, name, Some(&lower), false)?;
                Ok(Ok(Dir { fd, names }))
            }
            Some(Found::Symlink(target)) => Ok(Err(target)),
            Some(Found::Other { .. }) => {
                Err(self.bad(&entry.path, "a part of its path is a file of a lower layer"))
            }
            None => {
                let fd = self.make_dir(current, name, None, false)?;
                Ok(Ok(Dir { fd, names }))
            }
        }
    }

    /// Makes a directory the archive did not list, like the lower one or plain.
    fn make_dir(
        &mut self,
        parent: &Dir,
        name: &[u8],
        like: Option<&OwnedFd>,
        opaque: bool,
    ) -> Result<OwnedFd> {
        let place = self.place(parent, name);
        mkdirat(&parent.fd, name, Mode::S_IRWXU).at("cannot make directory", &place)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&parent.fd, name, flags, Mode::empty()).at("cannot open", &place)?;
        let mut time = (0, 0);
        match like {
            Some(lower) => {
                let stat = copy_dir_metadata(lower, &fd).at("cannot set attributes of", &place)?;
                time = (
                    stat.st_mtime,
                    u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
                );
            }
            None => fchmod(&fd, Mode::from_bits_truncate(IMPLICIT_DIR_MODE))
                .at("cannot set mode of", &place)?,
        }
        if opaque {
            self.set_opaque(&fd, &place)?;
        }
        self.remember_time(
            parent
                .names
                .iter()
                .cloned()
                .chain([name.to_vec()])
                .collect(),
            time,
        )?;
        Ok(fd)
    }

    pub(super) fn set_opaque(&self, fd: &OwnedFd, place: &Path) -> Result<()> {
        if self.lowers.is_empty() {
            return Ok(());
        }
        xattr::set_fd(fd, xattr::OVERLAY_OPAQUE.as_bytes(), b"y").at("cannot mark as opaque", place)
    }

    pub(super) fn remember_time(&mut self, names: Vec<Name>, time: (i64, u32)) -> Result<()> {
        self.dir_bytes += names
            .iter()
            .map(|n| n.len() + size_of::<Name>())
            .sum::<usize>();
        if self.dir_bytes > MAX_DIRECTORY_PATH_BYTES {
            let what = format!("paths of directories in {}", self.archive);
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_DIRECTORY_PATH_BYTES as u64,
                unit: "bytes",
            });
        }
        self.dir_times.push((names, time));
        Ok(())
    }
}
