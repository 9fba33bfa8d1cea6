package table

import (
	"fmt"
	"strconv"
)

// Striped distributes the chunks of a range over devices, one after the other.
type Striped struct {
	Chunk   uint32 // sectors in a chunk
	Stripes []Location
}

var _ Target = (*Striped)(nil)

func parseStriped(w *words) (Target, error) {
	if err := w.atLeast(2); err != nil {
		return nil, err
	}
	count, err := w.number("number of stripes", 32)
	if err != nil {
		return nil, err
	}
	chunk, err := w.number("chunk", 32)
	if err != nil {
		return nil, err
	}
	// The kernel computes the number of arguments modulo 2^32.
	if uint64(len(w.rest)) != 2*count {
		return nil, fmt.Errorf("%d arguments after the chunk, not two for each of %d stripes: %w", len(w.rest), count, ErrInvalid)
	}
	t := &Striped{uint32(chunk), make([]Location, count)}
	for i := range t.Stripes {
		if t.Stripes[i], err = w.location(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Type implements Target.
func (*Striped) Type() string { return "striped" }

// Areas implements Target.
func (t *Striped) Areas(length uint64) []Area {
	areas := make([]Area, len(t.Stripes))
	for i := range areas {
		areas[i] = t.Stripes[i].area(length / uint64(len(t.Stripes)))
	}
	return areas
}

func (t *Striped) rename(name func(string) string) {
	for i := range t.Stripes {
		t.Stripes[i].rename(name)
	}
}

func (t *Striped) arguments(b []byte) []byte {
	b = strconv.AppendInt(b, int64(len(t.Stripes)), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(t.Chunk), 10)
	for i := range t.Stripes {
		b = append(b, ' ')
		b = t.Stripes[i].arguments(b)
	}
	return b
}

// check refuses what stripe_ctr in drivers/md/dm-stripe.c does.
func (t *Striped) check(length uint64) error {
	if len(t.Stripes) == 0 || t.Chunk == 0 {
		return fmt.Errorf("%d stripes with chunks of %d: %w", len(t.Stripes), t.Chunk, ErrInvalid)
	}
	if row := uint64(len(t.Stripes)) * uint64(t.Chunk); length%row != 0 {
		return fmt.Errorf("length %d: not a multiple of %d stripes with chunks of %d: %w", length, len(t.Stripes), t.Chunk, ErrInvalid)
	}
	return nil
}

func (*Striped) block() uint32 { return sectorSize }
