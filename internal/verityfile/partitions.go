package verityfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/gpt"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/jsontext"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

const (
	// maxSignaturePartition is the largest partition with a signature, in bytes, as for systemd.
	maxSignaturePartition = 4 << 20
	// maxSignatures is the largest number of partitions with a signature of one designator.
	maxSignatures = 8
	// noAuto is the attribute of a partition that programs do not use by themselves.
	noAuto = 1 << 63
	// emptyName is the name of a partition for a later version of the image.
	emptyName = "_empty"
)

// partitions are those of an image that belong to a root hash.
type partitions struct {
	root       []byte
	data, tree gpt.Partition
	signature  []byte // of the root hash; nil without one
}

// findPartitions returns the partitions of the image for a root hash, and its signature if that is
// asked for. If root is nil, the image itself says what the root hash is: in the partition with
// the signature, or else by the UUIDs of the only pair. findPartitions returns nil if there are
// none.
func findPartitions(image *store, root []byte, signed bool) (*partitions, error) {
	all, err := gpt.Read(image, image.size)
	if errors.Is(err, gpt.ErrNoTable) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image.Name(), err)
	}
	for _, d := range designators[runtime.GOARCH] {
		p, err := d.find(image, all, root, signed)
		if p != nil || err != nil {
			return p, err
		}
	}
	return nil, nil
}

// find returns the partitions of a designator.
func (d *designator) find(image *store, all []gpt.Partition, root []byte, signed bool) (*partitions, error) {
	data, trees := ofType(all, d.data), ofType(all, d.tree)
	var candidates []partitions
	if root == nil || signed {
		var err error
		if candidates, err = d.signatures(image, all); err != nil {
			return nil, err
		}
	}
	switch {
	case root != nil: // the signature may be elsewhere
		candidates = slices.DeleteFunc(candidates, func(c partitions) bool { return !bytes.Equal(c.root, root) })
		candidates = append(candidates, partitions{root: root})
	case len(candidates) == 0 && len(data) == 1 && len(trees) == 1:
		candidates = append(candidates, partitions{root: slices.Concat(data[0].ID[:], trees[0].ID[:])})
	case len(candidates) == 0 && len(data) > 0 && len(trees) > 0:
		return nil, d.ambiguous(image)
	}
	return d.match(image, candidates, data, trees)
}

// signatures reads the root hashes and signatures of a designator.
func (d *designator) signatures(image *store, all []gpt.Partition) (list []partitions, err error) {
	found := ofType(all, d.signature)
	if len(found) > maxSignatures {
		return nil, fmt.Errorf("%s: %d signatures of %s partitions, more than %d: %w", image.Name(), len(found), d.name, maxSignatures, unix.E2BIG)
	}
	for i := range found {
		p, err := readSignature(image, &found[i])
		if err != nil {
			return nil, fmt.Errorf("%s: partition %s: %w", image.Name(), found[i].ID, err)
		}
		list = append(list, *p)
	}
	return list, nil
}

// match returns the one candidate whose root hash has the UUIDs of a pair of partitions: its first
// 128 bits are that of the data, and its last 128 bits that of the tree.
func (d *designator) match(image *store, candidates []partitions, data, trees []gpt.Partition) (found *partitions, err error) {
	for _, c := range candidates {
		first, last := withID(data, c.root[:16]), withID(trees, c.root[len(c.root)-16:])
		switch {
		case len(first) == 0 || len(last) == 0:
			continue
		case len(first) > 1 || len(last) > 1, found != nil && !bytes.Equal(found.root, c.root):
			return nil, d.ambiguous(image)
		case found == nil:
			c.data, c.tree = first[0], last[0]
			found = &c
		}
	}
	return found, nil
}

// withID returns the partitions with a UUID.
func withID(all []gpt.Partition, id []byte) (list []gpt.Partition) {
	for _, p := range all {
		if bytes.Equal(p.ID[:], id) {
			list = append(list, p)
		}
	}
	return list
}

func (d *designator) ambiguous(image *store) error {
	err := fmt.Errorf("%s: several %s partitions with trees: %w", image.Name(), d.name, unix.ENOTUNIQ)
	return hint.Add(err, "give the root hash with --root-hash")
}

// ofType returns the partitions of a type that programs may use.
func ofType(all []gpt.Partition, t string) (list []gpt.Partition) {
	for _, p := range all {
		if p.Type.String() == t && p.Attributes&noAuto == 0 && p.Name != emptyName {
			list = append(list, p)
		}
	}
	return list
}

// readSignature reads a partition with a root hash and its signature: a JSON object, and zeroes.
func readSignature(image *store, p *gpt.Partition) (*partitions, error) {
	if p.Size > maxSignaturePartition {
		return nil, fmt.Errorf("signature of %d bytes, more than %d: %w", p.Size, maxSignaturePartition, unix.EFBIG)
	}
	text := make([]byte, p.Size)
	if _, err := image.ReadAt(text, int64(p.Start)); err != nil {
		return nil, err
	}
	var object struct {
		RootHash  string `json:"rootHash"`
		Signature string `json:"signature"`
	}
	if err := json.Unmarshal(bytes.TrimRight(text, "\x00"), &object); err != nil {
		return nil, fmt.Errorf("signature: %w: %w", jsontext.Explain(err), unix.EINVAL)
	}
	root, err := parseRoot("the signature", []byte(object.RootHash))
	if err != nil {
		return nil, err
	}
	signature, err := base64.StdEncoding.DecodeString(object.Signature)
	if err != nil {
		return nil, fmt.Errorf("signature: %w: %w", jsontext.Explain(err), unix.EINVAL)
	}
	return &partitions{root: root, signature: signature}, nil
}

// openTree returns the tree, which begins in its partition with a superblock. It checks the tree
// as findTree and makeTable do.
func (p *partitions) openTree(image *store) (*verity.Tree, error) {
	area, b := io.NewSectionReader(image, int64(p.tree.Start), int64(p.tree.Size)), make([]byte, verity.SuperblockSize)
	if _, err := area.ReadAt(b, 0); err != nil {
		return nil, err
	}
	s, err := verity.ParseSuperblock(b)
	if err != nil {
		return nil, err
	}
	tree, err := verity.NewTree(s.Params, verity.TreeOffset(0, s.HashBlockSize))
	switch {
	case err != nil:
		return nil, err
	case s.DataSize() > p.data.Size:
		return nil, fmt.Errorf("the data has %d bytes, its partition %d: %w", s.DataSize(), p.data.Size, unix.EINVAL)
	case tree.HashBlocks() > 0 && tree.End() > p.tree.Size:
		return nil, fmt.Errorf("the tree ends at byte %d, its partition at %d: %w", tree.End(), p.tree.Size, unix.EINVAL)
	}
	return tree, tree.CheckEnd(area, p.root)
}

// below returns the tables of the data and of the tree of the image at a path, in the concise format,
// and their paths.
func (p *partitions) below(path string) (text string, paths [2]string) {
	image := table.Escape(table.FileWord(path, "image"))
	text = fmt.Sprintf("data,,,ro,0 %d linear %s %d;hash,,,ro,0 %d linear %s %d",
		p.data.Size/512, image, p.data.Start/512, p.tree.Size/512, image, p.tree.Start/512)
	return text, [2]string{"/dev/mapper/data", "/dev/mapper/hash"}
}
