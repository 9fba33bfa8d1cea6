package table

import (
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"strconv"

	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// Verity checks the blocks of a device against a hash tree.
type Verity struct {
	Data, Hash string // devices: of the data, from its start, and of the tree
	Tree       *verity.Tree
	Root       []byte
	Options    VerityOptions
}

// verityVersion is the only version of the tree that is taken. Version 0 is that of the
// original Chrome OS.
const verityVersion = 1

var _ Target = (*Verity)(nil)

func parseVerity(w *words) (Target, error) {
	if err := w.atLeast(10); err != nil {
		return nil, err
	}
	version, err := w.number("version", 32)
	if err != nil {
		return nil, err
	}
	switch version {
	case verityVersion:
	case 0:
		return nil, badArgument("version", "0", ErrUnsupported)
	default:
		return nil, badArgument("version", strconv.FormatUint(version, 10), fmt.Errorf("only %d: %w", verityVersion, ErrInvalid))
	}
	t := &Verity{}
	if t.Data, err = w.device("device"); err != nil {
		return nil, err
	}
	if t.Hash, err = w.device("device"); err != nil {
		return nil, err
	}
	if err := t.parseTree(w); err != nil || len(w.rest) == 0 {
		return t, err
	}
	return t, t.Options.parse(w)
}

// parseTree reads the arguments from the size of a data block to the salt.
func (t *Verity) parseTree(w *words) error {
	var numbers [4]uint64
	for i, what := range []string{"data block size", "hash block size", "number of data blocks", "start of the tree"} {
		n, err := w.number(what, 32<<(i/2))
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	p := verity.Params{DataBlockSize: uint32(numbers[0]), HashBlockSize: uint32(numbers[1]), DataBlocks: numbers[2], Algorithm: w.next()}
	if mayBeKey(p.Algorithm) { // NewTree would quote it
		return badArgument("hash", p.Algorithm, ErrUnsupported)
	}
	root := w.next()
	var err error
	if p.Salt, err = verity.ParseSalt(w.next()); err != nil {
		return &argumentError{"salt", &verityError{err}}
	}
	// A block of 0 bytes is refused by NewTree.
	start, size := numbers[3], max(numbers[1], 1)
	if start > math.MaxInt64/size {
		return badArgument("start of the tree", strconv.FormatUint(start, 10), fmt.Errorf("number too large: %w", ErrInvalid))
	}
	if t.Tree, err = verity.NewTree(p, start*size); err != nil {
		return &verityError{err}
	}
	if t.Root, err = hex.DecodeString(root); err != nil || len(t.Root) != t.Tree.DigestSize() {
		return &argumentError{"root hash", fmt.Errorf("not %d hexadecimal digits: %w", 2*t.Tree.DigestSize(), ErrInvalid)}
	}
	return nil
}

// verityError is an error of package verity, with an errno.
type verityError struct{ err error }

func (e *verityError) Error() string { return e.err.Error() }

func (e *verityError) Unwrap() []error { return []error{e.err, ErrInvalid} }

// Type implements Target.
func (*Verity) Type() string { return "verity" }

// Areas implements Target. The area of the tree is the second.
func (t *Verity) Areas(length uint64) []Area {
	p := t.Tree.Params()
	return []Area{
		{Device: t.Data, Length: length, ReadOnly: true},
		{Device: t.Hash, Start: t.Tree.Start() / sectorSize, Length: t.Tree.HashBlocks() * uint64(p.HashBlockSize/sectorSize), ReadOnly: true},
	}
}

func (t *Verity) rename(name func(string) string) { t.Data, t.Hash = name(t.Data), name(t.Hash) }

func (t *Verity) arguments(b []byte) []byte {
	p := t.Tree.Params()
	salt := "-"
	if len(p.Salt) > 0 {
		salt = hex.EncodeToString(p.Salt)
	}
	b = fmt.Appendf(b, "%d %s %s %d %d %d %d %s %x %s", verityVersion, t.Data, t.Hash, p.DataBlockSize, p.HashBlockSize,
		p.DataBlocks, t.Tree.Start()/uint64(p.HashBlockSize), p.Algorithm, t.Root, salt)
	return t.Options.append(b)
}

// check refuses what verity_ctr in drivers/md/dm-verity-target.c does.
func (t *Verity) check(length uint64) error {
	p := t.Tree.Params()
	if page := os.Getpagesize(); int(p.DataBlockSize) > page {
		return fmt.Errorf("data blocks of %d bytes, larger than a page of %d: %w", p.DataBlockSize, page, ErrInvalid)
	}
	if length > p.DataSize()/sectorSize {
		return fmt.Errorf("length %d: the data blocks have %d sectors: %w", length, p.DataSize()/sectorSize, ErrInvalid)
	}
	return nil
}

func (t *Verity) block() uint32 { return t.Tree.Params().DataBlockSize }

// sizes is deviceCheck.line for verity.
func (t *Verity) sizes(c *deviceCheck, l *Line) (uint32, error) {
	p, areas := t.Tree.Params(), t.Areas(l.Length)
	data, hash := c.size(t.Data), c.size(t.Hash)
	switch {
	case p.DataBlockSize < data.Block:
		return 0, fmt.Errorf("data blocks of %d bytes: the device has logical blocks of %d: %w", p.DataBlockSize, data.Block, ErrInvalid)
	case p.HashBlockSize < hash.Block:
		return 0, fmt.Errorf("hash blocks of %d bytes: the device has logical blocks of %d: %w", p.HashBlockSize, hash.Block, ErrInvalid)
	}
	if err := fits(areas[0], data, p.DataBlockSize); err != nil {
		return 0, badArgument("device", t.Data, err)
	}
	if err := fits(areas[1], hash, hash.Block); err != nil {
		return 0, badArgument("device", t.Hash, err)
	}
	return p.DataBlockSize, nil
}

// checkVerity refuses a table in which verity is not alone, or that can be written. The lines
// of dmsetup have no flag for that, so a table of one of them becomes read-only.
func (t *Table) checkVerity() error {
	for n, l := range t.Lines {
		if _, ok := l.Target.(*Verity); !ok {
			continue
		}
		if t.Name == "" {
			t.ReadOnly = true
		}
		var err error
		switch {
		case len(t.Lines) > 1:
			err = fmt.Errorf("not the only line of its table: %w", ErrInvalid)
		case !t.ReadOnly:
			err = fmt.Errorf("the table is not read-only (ro): %w", ErrInvalid)
		}
		if err != nil {
			return inLine(t.Name, n+1, l.Target.Type(), err)
		}
	}
	return nil
}
