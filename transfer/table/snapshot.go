package table

import (
	"errors"
	"fmt"
	"strconv"
)

// Snapshot keeps the changes of an origin in a store.
type Snapshot struct {
	Origin string // a device that is only read
	Store  string // a file or disk with the exceptions ("COW device")
	Format Format // of the store
	Chunk  uint32 // sectors in a chunk
	// DiscardZeroes makes a discard of a whole chunk with an exception fill the chunk with
	// zeroes.
	DiscardZeroes bool
}

// A Format says how a store keeps its exceptions.
type Format uint8

// Formats of a store. What is full differs: a device with Persistent becomes invalid, one
// with PersistentOverflow refuses writes.
const (
	Persistent         Format = iota // P
	PersistentOverflow               // PO
	Transient                        // N: only in memory
)

var formats = []string{"P", "PO", "N"}

// String returns the format as a table has it.
func (f Format) String() string { return formats[f] }

// MinChunk and MaxChunk are the smallest and largest chunk of a snapshot, in sectors. The
// kernel also takes others.
const (
	MinChunk = 4 << 10 / sectorSize
	MaxChunk = 1 << 20 / sectorSize
)

const featureDiscardZeroes = "discard_zeroes_cow"

var _ Target = (*Snapshot)(nil)

func parseSnapshot(w *words) (Target, error) {
	if err := w.atLeast(4); err != nil {
		return nil, err
	}
	t := &Snapshot{}
	var err error
	if t.Origin, err = w.device("origin"); err != nil {
		return nil, err
	}
	if t.Store, err = w.device("store"); err != nil {
		return nil, err
	}
	if err := t.Format.parse(w.next()); err != nil {
		return nil, err
	}
	chunk, err := w.number("chunk", 32)
	if err != nil {
		return nil, err
	}
	t.Chunk = uint32(chunk)
	return t, t.parseFeatures(w)
}

func (f *Format) parse(s string) error {
	for i, name := range formats {
		if s == name {
			*f = Format(i)
			return nil
		}
	}
	return badArgument("format", s, fmt.Errorf("not P, PO or N: %w", ErrInvalid))
}

// parseFeatures refuses a number of features that is not that of the rest, because the
// kernel ignores words behind the features (parse_snapshot_features in drivers/md/dm-snap.c).
func (t *Snapshot) parseFeatures(w *words) error {
	if len(w.rest) == 0 {
		return nil
	}
	count, err := w.number("number of features", 32)
	if err != nil {
		return err
	}
	if uint64(len(w.rest)) != count {
		return fmt.Errorf("%d words after a number of %d features: %w", len(w.rest), count, ErrInvalid)
	}
	for len(w.rest) > 0 {
		switch s := w.next(); {
		case s == featureDiscardZeroes && !t.DiscardZeroes:
			t.DiscardZeroes = true
		case s == "discard_passdown_origin":
			return badArgument("feature", s, fmt.Errorf("it destroys data that the device still has: %w", ErrUnsupported))
		default:
			return badArgument("feature", s, ErrInvalid)
		}
	}
	return nil
}

// device returns the next argument, a device.
func (w *words) device(what string) (string, error) {
	s := w.next()
	device, err := normalDevice(s)
	if err != nil {
		return "", badArgument(what, s, err)
	}
	return device, nil
}

// Type implements Target.
func (*Snapshot) Type() string { return "snapshot" }

// Areas implements Target. The store has an area of no length, because it has any size.
func (t *Snapshot) Areas(length uint64) []Area {
	return []Area{{Device: t.Origin, Length: length, ReadOnly: true}, {Device: t.Store}}
}

func (t *Snapshot) rename(name func(string) string) {
	t.Origin, t.Store = name(t.Origin), name(t.Store)
}

func (t *Snapshot) arguments(b []byte) []byte {
	b = fmt.Appendf(b, "%s %s %s ", t.Origin, t.Store, t.Format)
	b = strconv.AppendUint(b, uint64(t.Chunk), 10)
	if t.DiscardZeroes {
		b = append(b, " 1 "+featureDiscardZeroes...)
	}
	return b
}

// check refuses what dm_exception_store_set_chunk_size in drivers/md/dm-exception-store.c
// does. A chunk of 0 means the chunk of the store there.
func (t *Snapshot) check(uint64) error {
	switch {
	case t.Chunk == 0:
		return badArgument("chunk", "0", fmt.Errorf("name the size: %w", ErrInvalid))
	case t.Chunk&(t.Chunk-1) != 0:
		return badArgument("chunk", fmt.Sprint(t.Chunk), fmt.Errorf("not a power of 2: %w", ErrInvalid))
	case t.Chunk < MinChunk:
		return badArgument("chunk", fmt.Sprint(t.Chunk), fmt.Errorf("less than %d sectors: %w", MinChunk, ErrUnsupported))
	case t.Chunk > MaxChunk:
		return badArgument("chunk", fmt.Sprint(t.Chunk), fmt.Errorf("more than %d sectors: %w", MaxChunk, ErrLimit))
	case t.Origin == t.Store:
		return badArgument("store", t.Store, fmt.Errorf("the origin itself: %w", ErrInvalid))
	}
	return nil
}

func (*Snapshot) block() uint32 { return sectorSize }

// checkStart refuses a snapshot that does not start at sector 0. The kernel does not make the
// sectors relative to the line (snapshot_map), but divides requests relative to it.
func (l *Line) checkStart() error {
	if _, ok := l.Target.(*Snapshot); ok && l.Start != 0 {
		return fmt.Errorf("start %d, not 0: %w", l.Start, errors.ErrUnsupported)
	}
	return nil
}

// checkStore refuses a table of the stack as a store, but for the encryption of a store without
// metadata.
func (s *Stack) checkStore(target Target, device string, below int) error {
	t, ok := target.(*Snapshot)
	if !ok || t.Store != device {
		return nil
	}
	if t.Format != Transient || t.DiscardZeroes {
		return fmt.Errorf("a table as the store, not a file or disk: %w", ErrUnsupported)
	}
	if _, ok := s.storeCipher(below); !ok {
		return fmt.Errorf("a table as the store that is not one line of crypt from sector 0 of a file or disk: %w", ErrUnsupported)
	}
	return nil
}

// storeCipher returns the only line of a table that can be the store of a snapshot; ok is false
// for other tables.
func (s *Stack) storeCipher(number int) (c *Crypt, ok bool) {
	lines := s.Tables[number].Lines
	c, ok = lines[0].Target.(*Crypt)
	if !ok || len(lines) != 1 || c.Start != 0 {
		return nil, false
	}
	_, isTable := s.Table(c.Device)
	return c, !isTable
}

// StoreDevice returns the file or disk that has the store of a snapshot, below its encryption if
// it has one.
func (s *Stack) StoreDevice(t *Snapshot) string {
	if i, ok := s.Table(t.Store); ok {
		c, _ := s.storeCipher(i) // Parse has checked it
		return c.Device
	}
	return t.Store
}
