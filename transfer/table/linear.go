package table

// Linear maps a range to a part of one device of the same length.
type Linear struct{ Location }

var _ Target = (*Linear)(nil)

func parseLinear(w *words) (Target, error) {
	if err := w.exactly(2); err != nil {
		return nil, err
	}
	l, err := w.location()
	return &Linear{l}, err
}

// Type implements Target.
func (*Linear) Type() string { return "linear" }

// Areas implements Target.
func (t *Linear) Areas(length uint64) []Area { return []Area{t.area(length)} }

func (*Linear) check(uint64) error { return nil }

func (*Linear) block() uint32 { return sectorSize }
