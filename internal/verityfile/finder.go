package verityfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// A finder finds the root hash of an image, its signature, and the tree.
type finder struct {
	image *os.File // from where.Opener
	store *store   // the same, for reading
	where *Location
	near  *neighbourhood // nil for a disk, and if nothing is looked for

	root       []byte
	hash       *os.File    // the tree: image, or a file that the caller closes
	partitions *partitions // of the image, which have data and tree; mostly nil
	damaged    error       // of a partition table that is perhaps not needed
}

func (f *finder) close() {
	if f.near != nil {
		f.near.close()
	}
}

// find finds the root hash, checks its signature if one is asked for, and finds the tree.
func (f *finder) find() error {
	if err := f.findRoot(); err != nil {
		return err
	}
	if f.where.Signature != "" {
		if err := f.checkSignature(); err != nil {
			return err
		}
	}
	return f.findHash()
}

// looksInside reports whether data and tree can be partitions: whoever says where the tree is means
// the data at the start of the image.
func (f *finder) looksInside() bool { return f.where.HashFile == "" && f.where.HashOffset == nil }

// findRoot sets the root hash, and the partitions if they have it.
func (f *finder) findRoot() (err error) {
	if f.where.RootHash == auto || f.where.Signature == auto {
		if f.near, err = around(f.image, f.where.Opener); err != nil {
			return err
		}
	}
	if f.where.RootHash != auto {
		f.root, err = ReadRoot(f.where.RootHash)
		return err
	}
	if f.near != nil {
		if f.root, err = f.near.findRoot(f.where); f.root != nil || err != nil {
			return err
		}
	}
	if f.looksInside() {
		if f.partitions, err = findPartitions(f.store, nil, true); err != nil {
			return err
		}
	}
	if f.partitions == nil {
		return f.nothingFound()
	}
	f.root = f.partitions.root
	return nil
}

// nothingFound returns the error if there is no root hash beside an image, nor in it.
func (f *finder) nothingFound() error {
	if f.near == nil {
		return hint.Add(errNothingFound, "give the root hash with --root-hash")
	}
	return &hint.Error{Err: errNothingFound, Hint: "give the root hash with --root-hash, or put it into " + f.near.path(rootSuffix)}
}

// checkSignature checks the signature of the root hash against the certificates of the host.
func (f *finder) checkSignature() error {
	signature, err := f.readSignature()
	if err != nil {
		return err
	}
	certificates, err := hostCertificates(certificateDirs)
	if err != nil {
		return err
	}
	return checkSignature(f.root, signature, certificates)
}

// readSignature returns the signature: that of the file, or what is beside the image or in a
// partition of it.
func (f *finder) readSignature() (signature []byte, err error) {
	if f.where.Signature != auto {
		file, err := f.where.Opener(f.where.Signature, 0)
		if err != nil {
			return nil, err
		}
		return readOpen(file, maxSignature)
	}
	if f.near != nil {
		if signature, err = f.near.read(signatureSuffix, maxSignature); signature != nil || err != nil {
			return signature, err
		}
	}
	if f.partitions == nil && f.looksInside() {
		if f.partitions, err = findPartitions(f.store, f.root, true); err != nil {
			return nil, err
		}
	}
	if f.partitions == nil || f.partitions.signature == nil {
		return nil, fmt.Errorf("no signature of the root hash beside the image or in it: %w", unix.ENODATA)
	}
	return f.partitions.signature, nil
}

// findHash sets the file with the tree, or the partitions of data and tree.
func (f *finder) findHash() (err error) {
	switch {
	case f.where.HashFile != "":
		f.hash, err = f.where.Opener(f.where.HashFile, 0)
		return err
	case f.where.HashOffset != nil || f.partitions != nil:
		f.hash = f.image
		return nil
	case f.where.RootHash == auto && f.near != nil:
		if f.hash, err = f.near.open(treeSuffix); f.hash != nil || err != nil {
			return err
		}
	}
	f.hash = f.image
	f.partitions, f.damaged = findPartitions(f.store, f.root, false)
	return nil
}
