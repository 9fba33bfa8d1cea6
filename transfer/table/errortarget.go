package table

import "fmt"

// ErrorTarget fails all reads, writes and discards with EIO.
type ErrorTarget struct {
	// Limits is the device whose limits the range has; nil for none.
	Limits *Location
}

var _ Target = (*ErrorTarget)(nil)

// parseError refuses numbers of arguments that the kernel ignores
// (io_err_ctr in drivers/md/dm-target.c).
func parseError(w *words) (Target, error) {
	switch n := len(w.rest); n {
	case 0:
		return &ErrorTarget{}, nil
	case 2:
		l, err := w.location()
		return &ErrorTarget{&l}, err
	default:
		return nil, fmt.Errorf("%d arguments, neither 0 nor 2: %w", n, ErrInvalid)
	}
}

// Type implements Target.
func (*ErrorTarget) Type() string { return "error" }

// Areas implements Target.
func (t *ErrorTarget) Areas(length uint64) []Area {
	if t.Limits == nil {
		return nil
	}
	return []Area{t.Limits.area(length)}
}

func (t *ErrorTarget) rename(name func(string) string) {
	if t.Limits != nil {
		t.Limits.rename(name)
	}
}

func (t *ErrorTarget) arguments(b []byte) []byte {
	if t.Limits == nil {
		return b
	}
	return t.Limits.arguments(b)
}

func (*ErrorTarget) check(uint64) error { return nil }

func (*ErrorTarget) block() uint32 { return sectorSize }
