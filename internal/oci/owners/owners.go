// Package owners finds the users who can change what a path leads to.
package owners

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Users are those who can change the directories and links that a path leads through, and the file at its
// end. Each of them can make the path lead elsewhere.
type Users []uint32

// Unnamed stands for users who may write to a file or directory of another user. It is no user's number.
const Unnamed uint32 = 1<<32 - 1

// Add adds those who can change a file, or exchange what is in a directory: the owner, and users whom the mode allows
// it. A group with the number of the owner has only the owner in it, as a user's private group has. In a sticky
// directory, only the owners of the directory and of the file can exchange the file.
func (u *Users) Add(st *unix.Stat_t) {
	u.add(st.Uid)
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFLNK || kind == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0 {
		return
	}
	if st.Mode&unix.S_IWOTH != 0 || st.Mode&unix.S_IWGRP != 0 && st.Gid != st.Uid {
		u.add(Unnamed)
	}
}

func (u *Users) add(uid uint32) {
	if !slices.Contains(*u, uid) {
		*u = append(*u, uid)
	}
}

// List returns all users but root. If there is only root, it returns root.
func (u Users) List() []uint32 {
	others := slices.DeleteFunc(slices.Clone(u), func(uid uint32) bool { return uid == 0 })
	if len(others) == 0 {
		return []uint32{0}
	}
	return others
}

// maxLinks is the number of links that the kernel follows in a path (MAXSYMLINKS).
const maxLinks = 40

// Open opens a directory as open(2) does, and returns all who can make the path lead elsewhere. It
// follows the links itself, because the owner of a link could exchange its target for a moment.
func Open(path string) (*os.File, Users, error) {
	w := &walk{at: -1}
	if err := w.start(path); err != nil {
		return nil, nil, err
	}
	defer func() { _ = unix.Close(w.at) }()
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		if err := w.step(name); err != nil {
			return nil, nil, fmt.Errorf("open %s: %w", path, err)
		}
	}
	fd, err := unix.Openat(w.at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), w.users, nil
}

// walk is where the resolution of a path is.
type walk struct {
	at    int      // an open directory
	rest  []string // names that follow
	links int
	users Users
}

// start opens the directory in which a path begins.
func (w *walk) start(path string) error {
	top := "."
	if strings.HasPrefix(path, "/") {
		top = "/"
	}
	w.rest = append(strings.Split(path, "/"), w.rest...)
	fd, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return w.enter(fd)
}

// enter goes to an open directory.
func (w *walk) enter(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	w.users.Add(&st)
	if w.at >= 0 {
		_ = unix.Close(w.at)
	}
	w.at = fd
	return nil
}

// step goes to a name, or to where it leads if it is a link.
func (w *walk) step(name string) error {
	if name == "" {
		return nil
	}
	fd, err := unix.Openat(w.at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		w.users.Add(&st)
		return w.follow(fd)
	}
	// Only O_DIRECTORY makes the kernel mount what autofs(5) mounts at the first use.
	dir, err := unix.Openat(w.at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return w.enter(dir)
}

// follow puts the target of an open link in front of the names that follow.
func (w *walk) follow(link int) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	var target [unix.PathMax]byte
	n, err := unix.Readlinkat(link, "", target[:])
	if err != nil {
		return err
	}
	if n > 0 && target[0] == '/' {
		return w.start(string(target[:n]))
	}
	w.rest = append(strings.Split(string(target[:n]), "/"), w.rest...)
	return nil
}
