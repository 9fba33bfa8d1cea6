package verityfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/jsontext"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// auto is the root hash, or signature, that is looked for beside the image and in its partitions.
const auto = "auto"

// rootAttribute is systemd's extended attribute with the root hash.
const rootAttribute = "user.verity.roothash"

// Suffixes of files beside an image: systemd's, and containerd's.
const (
	rootSuffix       = ".roothash"
	signatureSuffix  = ".roothash.p7s"
	treeSuffix       = ".verity"
	containerdSuffix = ".dmverity"
)

// errNothingFound is the error if there is no root hash beside an image, nor in it.
var errNothingFound = fmt.Errorf("no root hash beside the image or in its partitions: %w", unix.ENODATA)

// A neighbourhood is the directory of an image. Its files can be anyone's, so no link is
// followed, and only regular files count.
type neighbourhood struct {
	dir   *os.File
	image *os.File
}

// around opens the directory of an image. It returns nil for a disk, and for an image that is no
// longer there.
func around(image *os.File, open Opener) (*neighbourhood, error) {
	info, err := image.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	dir, err := open(filepath.Dir(image.Name()), unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	var there, is unix.Stat_t
	err = errors.Join(unix.Fstatat(int(dir.Fd()), filepath.Base(image.Name()), &there, unix.AT_SYMLINK_NOFOLLOW), unix.Fstat(int(image.Fd()), &is))
	if err != nil || there.Ino != is.Ino || there.Dev != is.Dev {
		return nil, errors.Join(fmt.Errorf("%s is no longer there: %w", image.Name(), unix.ESTALE), dir.Close())
	}
	return &neighbourhood{dir, image}, nil
}

func (n *neighbourhood) close() { _ = n.dir.Close() }

// path returns the path of the file beside the image with a suffix. systemd's suffixes replace
// .raw.
func (n *neighbourhood) path(suffix string) string {
	path := n.image.Name()
	if suffix != containerdSuffix {
		path = strings.TrimSuffix(path, ".raw")
	}
	return path + suffix
}

// open opens the file beside the image with a suffix, with O_PATH. It returns nil if
// there is none.
func (n *neighbourhood) open(suffix string) (*os.File, error) {
	path := n.path(suffix)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(int(n.dir.Fd()), filepath.Base(path), &how)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: not a regular file: %w", path, unix.EINVAL)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// read returns the content of the file with a suffix, or nil if there is none.
func (n *neighbourhood) read(suffix string, limit int64) ([]byte, error) {
	file, err := n.open(suffix)
	if file == nil || err != nil {
		return nil, err
	}
	return readOpen(file, limit)
}

// readOpen returns the content of an O_PATH descriptor, which it closes.
func readOpen(file *os.File, limit int64) ([]byte, error) {
	defer func() { _ = file.Close() }()
	s, err := reopen(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	return readLimited(s.File, limit)
}

// readSmall returns the content of a file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return readLimited(file, limit)
}

func readLimited(file *os.File, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.NewSectionReader(file, 0, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%s: longer than %d bytes: %w", file.Name(), limit, unix.EFBIG)
	}
	return content, err
}

// findRoot returns the root hash beside the image: in its extended attribute, in systemd's file,
// or in containerd's. The last also sets where.HashOffset, unless that is given. It returns nil if
// there is none.
func (n *neighbourhood) findRoot(where *Location) ([]byte, error) {
	text := make([]byte, maxRootFile)
	size, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", n.image.Fd()), rootAttribute, text)
	switch {
	case err == nil:
		return parseRoot(rootAttribute, text[:size])
	case !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("read %s: %w", rootAttribute, err)
	}
	if text, err = n.read(rootSuffix, maxRootFile); err != nil || text != nil {
		if err != nil {
			return nil, err
		}
		return parseRoot(rootSuffix, text)
	}
	if text, err = n.read(containerdSuffix, 4096); err != nil || text == nil {
		return nil, err
	}
	return parseContainerd(text, where)
}

func parseRoot(from string, text []byte) ([]byte, error) {
	root, err := verity.ParseRoot(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("root hash in %s: %w", from, err)
	}
	return root, nil
}

// parseContainerd reads the file that containerd's erofs snapshotter puts beside a layer.
func parseContainerd(text []byte, where *Location) ([]byte, error) {
	var sidecar struct {
		RootHash   string `json:"roothash"`
		HashOffset uint64 `json:"hashoffset"`
	}
	if err := json.Unmarshal(text, &sidecar); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", containerdSuffix, jsontext.Explain(err), unix.EINVAL)
	}
	if where.HashOffset == nil && where.HashFile == "" {
		where.HashOffset = &sidecar.HashOffset
	}
	return parseRoot(containerdSuffix, []byte(sidecar.RootHash))
}
