package stack

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// MaxCrypts is the largest number of lines with the target crypt. The keys of all of them fit
// in a pipe.
const MaxCrypts = 1000

// crypts yields the lines with the target crypt in the order of the text. It stops at the first error.
func crypts(s *table.Stack, each func(number int, c *table.Crypt) error) error {
	number := 0
	for i := range s.Tables {
		t := &s.Tables[i]
		for n, l := range t.Lines {
			c, ok := l.Target.(*table.Crypt)
			if !ok {
				continue
			}
			if err := each(number, c); err != nil {
				return &table.StackError{Table: t.Name, Line: n + 1, Target: c.Type(), Err: err}
			}
			number++
		}
	}
	return nil
}

// makeTransfers makes the transfer of each line with crypt. keys are those of the lines, one
// after another.
func (s *Stack) makeTransfers(keys *transfer.Secret) error {
	var rest []byte
	if keys != nil {
		rest = keys.Bytes()
	}
	err := crypts(s.tables, func(_ int, c *table.Crypt) error {
		if len(rest) < c.Key.Bytes {
			return fmt.Errorf("key: %w", transfer.ErrNoKey)
		}
		key, err := transfer.NewSecret(c.Key.Bytes)
		if err != nil {
			return err
		}
		transfer.CopyKey(key.Bytes(), rest[:c.Key.Bytes])
		rest = rest[c.Key.Bytes:]
		t, err := transfer.New(c.Cipher, key, transfer.Options{
			SectorSize: c.SectorSize, IVOffset: c.IVOffset, IVLargeSectors: c.IVLargeSectors,
		})
		if err != nil {
			return err
		}
		s.transfers = append(s.transfers, t)
		return nil
	})
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes of keys too many: %w", len(rest), unix.EINVAL)
	}
	return err
}

// closeTransfers wipes the keys.
func (s *Stack) closeTransfers() error {
	var errs []error
	for _, t := range s.transfers {
		errs = append(errs, t.Close())
	}
	s.transfers = nil
	return errors.Join(errs...)
}

// Transforms reports whether the bytes of the device are others than those of its files, or
// are checked, so that requests need a copy of their data.
func (s *Stack) Transforms() bool { return len(s.layers) > 0 }

// IsUnaligned is false: tables count in sectors.
func (*Stack) IsUnaligned() bool { return false }

// KeyCheck returns a check of the keys, which the state file keeps: four bytes for each line
// with crypt, of the encryption of zeroes in a sector that no disk has.
func (s *Stack) KeyCheck(sector uint64) string {
	var check strings.Builder
	_ = crypts(s.tables, func(i int, c *table.Crypt) error {
		data := make([]byte, c.SectorSize)
		s.transfers[i].Encrypt(data, sector)
		fmt.Fprintf(&check, "%x", data[:4])
		return nil
	})
	return check.String()
}

// encrypt transforms the data of a write, from the uppermost layer down.
func (h *handler) encrypt(req *ublk.Request) {
	for level := range h.levels {
		walk := h.stack.plan.LayerWalk(level, req.Offset(), req.Bytes(), nil)
		for run, ok := walk.Next(); ok; run, ok = walk.Next() {
			h.stack.layers[run.Layer].transfer.Encrypt(req.Data()[run.At:run.At+run.Length], run.Sector)
		}
	}
	req.Worked()
}

// encryptForStore transforms data for its place in a store that is encrypted. It is called once
// for each piece, because only then the place is known.
func (h *handler) encryptForStore(cipher int, data []byte, offset uint64) {
	if cipher != 0 {
		h.stack.layers[cipher-1].transfer.Encrypt(data, offset>>sectorShift)
	}
}

// decrypt transforms the data of a read, from the lowest layer up.
func (h *handler) decrypt(req *ublk.Request) {
	for level := h.levels - 1; level >= 0; level-- {
		walk := h.stack.plan.LayerWalk(level, req.Offset(), req.Bytes(), nil)
		for run, ok := walk.Next(); ok; run, ok = walk.Next() {
			h.stack.layers[run.Layer].transfer.Decrypt(req.Data()[run.At:run.At+run.Length], run.Sector)
		}
	}
	req.Worked()
}

// hasLayersBelow reports whether a target changes or checks data, except for a cover.
func (s *Stack) hasLayersBelow() bool {
	if s.tables.Cover() != nil {
		return len(s.layers) > 1
	}
	return len(s.layers) > 0
}

// coveredBytes returns the size of the last table below the cover.
func coveredBytes(tables *table.Stack) uint64 {
	below := tables.Uncovered()
	return below[len(below)-1].Sectors() << sectorShift
}

// sameCover reports whether two covers encrypt in the same way.
func sameCover(a, b *table.Crypt) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Device, y.Device = "", ""
	return x == y
}
