package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
	"github.com/ublk-loop/ublk-loop/internal/verityfile"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// verified says how the blocks of an image are checked. The zero value stands for an image that
// is not checked.
type verified struct {
	root       string // in hexadecimal digits, auto for what is beside the image, "" for no check
	hashOffset string // a number of bytes, "" to look for the tree
	hashFile   string // an absolute path, "" to look for the tree
	signature  string // an absolute path, auto for what is beside the image, "" for none
}

// auto is what lies beside the image.
const auto = "auto"

// Names of the settings that oci.toml can demand.
const (
	rootSetting      = "verity.roothash"
	signatureSetting = "verity.roothashsig"
)

// settings returns the settings in the order in which they are parsed.
func (v *verified) settings() []annotation {
	return []annotation{
		{rootSetting, "none", v.parseRoot},
		{"verity.hashoffset", auto, v.parseHashOffset},
		{"verity.hashfile", auto, v.parseHashFile},
		{signatureSetting, "none", v.parseSignature},
	}
}

// isGiven reports whether the image is checked.
func (v *verified) isGiven() bool { return v.root != "" }

func (v *verified) parseRoot(value string) error {
	if value == "none" {
		return nil
	}
	if value != auto {
		// A path is refused, because it would lead to any file of the host.
		if _, err := verity.ParseRoot(value); err != nil {
			return fmt.Errorf("%w: %w", err, unix.EINVAL)
		}
	}
	v.root = value
	return nil
}

// needRoot refuses a setting that has no effect without a root hash.
func (v *verified) needRoot() error {
	if v.root == "" {
		return fmt.Errorf("without verity.roothash: %w", unix.EINVAL)
	}
	return nil
}

func (v *verified) parseHashOffset(value string) error {
	if value == auto {
		return nil
	}
	if n, err := strconv.ParseUint(value, 10, 63); err != nil || n%verity.SuperblockSize != 0 {
		return fmt.Errorf("not a multiple of %d bytes: %w", verity.SuperblockSize, unix.EINVAL)
	}
	v.hashOffset = value
	return v.needRoot()
}

func (v *verified) parseHashFile(value string) error {
	if value == auto {
		return nil
	}
	v.hashFile = value
	if err := checkPath(value); err != nil {
		return err
	}
	return v.needRoot()
}

func (v *verified) parseSignature(value string) error {
	if value == "none" {
		return nil
	}
	if v.signature = value; value != auto {
		if err := checkPath(value); err != nil {
			return err
		}
	}
	return v.needRoot()
}

// location returns where the root hash, its signature and the tree are.
func (v *verified) location(open verityfile.Opener) *verityfile.Location {
	l := &verityfile.Location{RootHash: v.root, HashFile: v.hashFile, Signature: v.signature, Opener: open}
	if n, err := strconv.ParseUint(v.hashOffset, 10, 63); err == nil {
		l.HashOffset = &n
	}
	return l
}

// openVerity opens the tree of an image, and checks its signature. All files are below the
// directories of images.
func (s *Settings) openVerity(image *os.File, v *verified, who Requester) (*verityfile.Device, error) {
	return verityfile.Open(image, v.location(func(path string, flags int) (*os.File, error) {
		open := below.OpenRegular
		if flags&unix.O_DIRECTORY != 0 {
			open = below.OpenDirectory
		}
		return openInAll(s.lists(who, allowedImages), path, open)
	}))
}

// demandVerity refuses an image that the settings allow only with verity, or only with a
// signature. It returns an error that wraps EPERM.
func (s *Settings) demandVerity(image *os.File, v *verified, who Requester) error {
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", image.Fd()))
	if err != nil {
		return err
	}
	for _, demand := range []struct {
		list   string
		dirs   func(Lists) []string
		is     bool
		needed string
	}{
		{"verity_images", verityImages, v.root != "", rootSetting},
		{"signed_images", signedImages, v.signature != "", signatureSetting},
	} {
		for _, dirs := range s.lists(who, demand.dirs) {
			if dir, in := holder(dirs, image.Name(), real); in && !demand.is {
				return fmt.Errorf("%s: below %s of %s: not without %s: %w", image.Name(), dir, demand.list, demand.needed, unix.EPERM)
			}
		}
	}
	return nil
}

// holder returns the directory that a file is below. A directory of the settings can lead to
// another one by a link, so the real paths count too.
func holder(dirs []string, path, real string) (string, bool) {
	for _, dir := range dirs {
		if isBelow(dir, path) || isBelow(dir, real) {
			return dir, true
		}
		if target, err := filepath.EvalSymlinks(dir); err == nil && isBelow(target, strings.TrimSuffix(real, " (deleted)")) {
			return dir, true
		}
	}
	return "", false
}
