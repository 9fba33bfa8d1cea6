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

// makeTransfers makes the transfer of each line with crypt. keys are those of the lines, one
// after another.
func (s *Stack) makeTransfers(keys *transfer.Secret) error {
	var rest []byte
	if keys != nil {
		rest = keys.Bytes()
	}
	for place, c := range table.Targets[*table.Crypt](s.tables) {
		if len(rest) < c.Key.Bytes {
			return place.Wrap(fmt.Errorf("key: %w", transfer.ErrNoKey))
		}
		t, err := newTransfer(c, rest[:c.Key.Bytes])
		if err != nil {
			return place.Wrap(err)
		}
		s.transfers = append(s.transfers, t)
		rest = rest[c.Key.Bytes:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes of keys too many: %w", len(rest), unix.EINVAL)
	}
	return nil
}

// newTransfer returns the transfer of a line with crypt. It copies the key.
func newTransfer(c *table.Crypt, bytes []byte) (transfer.Transfer, error) {
	key, err := transfer.NewSecret(len(bytes))
	if err != nil {
		return nil, err
	}
	transfer.CopyKey(key.Bytes(), bytes)
	return transfer.New(c.Cipher, key, transfer.Options{
		SectorSize: c.SectorSize, IVOffset: c.IVOffset, IVLargeSectors: c.IVLargeSectors,
	})
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
	transfers := s.transfers
	for _, c := range table.Targets[*table.Crypt](s.tables) {
		data := make([]byte, c.SectorSize)
		transfers[0].Encrypt(data, sector)
		transfers = transfers[1:]
		fmt.Fprintf(&check, "%x", data[:4])
	}
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
