package mapping

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// numStacks is how many random stacks a test looks at, and numRequests how many
// requests to each.
const numStacks, numRequests = 2000, 20

// forRequests calls a function with requests to random stacks.
func forRequests(t *testing.T, call func(s *table.Stack, p *Plan, first, sectors uint64)) {
	t.Helper()
	m := &stackMaker{Rand: rand.New(rand.NewPCG(3, 4))}
	for range numStacks {
		s := m.stack(t)
		p, err := New(s, nil)
		if err != nil {
			t.Fatalf("%s: %v", s.Concise(), err)
		}
		size := s.Tables[len(s.Tables)-1].Sectors()
		if p.Size() != size*512 {
			t.Fatalf("%s: size %d", s.Concise(), p.Size())
		}
		for range numRequests {
			first := m.Uint64N(size)
			call(s, p, first, 1+m.Uint64N(size-first))
			if t.Failed() {
				t.Fatalf("in %s", strings.ReplaceAll(s.Concise(), ";", ";\n"))
			}
		}
	}
}

// The pieces of a request are the sectors that the definitions of the targets
// give, in their order, and no two pieces could be one.
func TestWalk(t *testing.T) {
	var pieces, sectorsInAll int
	forRequests(t, func(s *table.Stack, p *Plan, first, sectors uint64) {
		devices := s.Devices()
		n := first
		for w := p.Walk(first*512, sectors*512); ; {
			piece, ok := w.Next()
			if !ok {
				break
			}
			pieces++
			if piece.At != (n-first)*512 || piece.Length == 0 || piece.Length%512 != 0 {
				t.Fatalf("piece %+v after %d sectors", piece, n-first)
			}
			if n > first && continues(naive(s, len(s.Tables)-1, n-1), naive(s, len(s.Tables)-1, n)) {
				t.Fatalf("piece %+v continues the one before it", piece)
			}
			for i := uint64(0); i < piece.Length/512; i++ {
				want := naive(s, len(s.Tables)-1, n)
				got := sector{kind: piece.Kind}
				if piece.Kind == Device {
					got.device, got.number = devices[piece.Device], piece.Offset/512+i
				}
				if got.kind != want.kind || got.device != want.device || got.number != want.number {
					t.Fatalf("sector %d is %+v, not %+v", n, got, want)
				}
				n++
			}
		}
		if n != first+sectors {
			t.Fatalf("pieces of %d sectors, not %d", n-first, sectors)
		}
		sectorsInAll += int(sectors)
	})
	if pieces*2 > sectorsInAll {
		t.Errorf("%d pieces of %d sectors: the stacks are no test of runs", pieces, sectorsInAll)
	}
}

// Behind the end of a stack that can be resized, a plan leads to where it would with a longer
// last line.
func TestWalkBehindTheEnd(t *testing.T) {
	checked := 0
	forRequests(t, func(s *table.Stack, p *Plan, _, _ uint64) {
		last := s.Resizable()
		if last == nil {
			return
		}
		size, length := s.Sectors(), last.Length
		last.Length += 1 << 40
		defer func() { last.Length = length }()
		for _, n := range []uint64{size - 1, size, size + 77, size + 1<<40 - 1} {
			want := naive(s, len(s.Tables)-1, n)
			got := p.at(p.top, n*512, 512, false)
			if got.Kind != Device || got.Offset != want.number*512 || s.Devices()[got.Device] != want.device || got.Length != 512 {
				t.Fatalf("sector %d of %d is %+v, not %+v", n, size, got, want)
			}
			checked++
		}
	})
	if checked == 0 {
		t.Error("no stack can be resized")
	}
}

// continues reports whether b can be in the same operation as a, the sector before it.
func continues(a, b sector) bool {
	return a.kind == b.kind && a.device == b.device && (a.kind != Device || a.number+1 == b.number)
}

// The runs of each level are those of the definitions, and no two could be one.
func TestLayerWalk(t *testing.T) {
	levels := map[int]int{}
	var seen *table.Stack
	deepest := 0 // of seen
	forRequests(t, func(s *table.Stack, p *Plan, first, sectors uint64) {
		levels[p.Levels()]++
		targets := p.Layers()
		if s != seen {
			seen, deepest = s, 0
			for n := range p.Size() / 512 {
				deepest = max(deepest, len(naive(s, len(s.Tables)-1, n).layers))
			}
		}
		if p.Levels() < deepest {
			t.Fatalf("%d levels, not %d", p.Levels(), deepest)
		}
		for level := range p.Levels() + 1 {
			got := make([]layerSector, sectors)
			var last Run
			for w := p.LayerWalk(level, first*512, sectors*512, nil); ; {
				run, ok := w.Next()
				if !ok {
					break
				}
				if run.At < last.At+last.Length || last.Length != 0 && last.continuedBy(&run) {
					t.Fatalf("run %+v after %+v", run, last)
				}
				last = run
				for i := range run.Length / 512 {
					got[run.At/512+i] = layerSector{targets[run.Layer], run.Sector + i}
				}
			}
			for i := range got {
				var want layerSector
				if layers := naive(s, len(s.Tables)-1, first+uint64(i)).layers; level < len(layers) {
					want = layers[level]
				}
				if got[i] != want {
					t.Fatalf("level %d, sector %d is %+v, not %+v", level, first+uint64(i), got[i], want)
				}
			}
		}
	})
	if levels[0] == 0 || levels[1] == 0 || levels[2] == 0 {
		t.Errorf("stacks by levels: %v", levels)
	}
}

// place is where a sector is.
type place struct {
	kind   Kind
	device string
	number uint64
}

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.kind, other.kind), cmp.Compare(p.device, other.device), cmp.Compare(p.number, other.number))
}

// The pieces of a range without data are the same sectors in any order.
func TestRangeWalk(t *testing.T) {
	var fewer int
	forRequests(t, func(s *table.Stack, p *Plan, first, sectors uint64) {
		w := &p.RangeWalks(2)[0]
		devices := s.Devices()
		var want, got []place
		for i := range sectors {
			x := naive(s, len(s.Tables)-1, first+i)
			want = append(want, place{x.kind, x.device, x.number})
		}
		var last Piece
		count := 0
		for p.RangeWalk(w, first*512, sectors*512); ; count++ {
			piece, ok := w.Next()
			if !ok {
				break
			}
			if piece.Length == 0 || last.Length != 0 && last.continuedBy(&piece) {
				t.Fatalf("piece %+v after %+v", piece, last)
			}
			last = piece
			if cap(w.frames) != p.top.frames {
				t.Fatalf("the walk has %d frames, and the plan needs %d", cap(w.frames), p.top.frames)
			}
			for i := range piece.Length / 512 {
				at := place{kind: piece.Kind}
				if piece.Kind == Device {
					at.device, at.number = devices[piece.Device], piece.Offset/512+i
				}
				got = append(got, at)
			}
		}
		slices.SortFunc(want, place.compare)
		slices.SortFunc(got, place.compare)
		if !slices.Equal(got, want) {
			t.Fatalf("sectors %v, not %v", got, want)
		}
		inOrder := 0
		for walk := p.Walk(first*512, sectors*512); ; inOrder++ {
			if _, ok := walk.Next(); !ok {
				break
			}
		}
		if count < inOrder {
			fewer++
		}
	})
	if fewer == 0 {
		t.Error("no range has fewer pieces than the request with data")
	}
}

// A flush goes to every device that the stack maps, and to no device that only
// has limits.
func TestFlushDevices(t *testing.T) {
	for text, want := range map[string][]int{
		"0 8 zero": nil,
		"0 8 error /dev/a 0\n8 8 linear /dev/b 0":                                                             {1},
		"0 8 linear /dev/b 0\n8 8 linear /dev/a 0\n16 8 linear /dev/b 0":                                      {0, 1},
		"a,,,,0 8 crypt aes-xts-plain64 :64:user:k 0 /dev/c 0;b,,,,0 16 striped 2 8 /dev/mapper/a 0 /dev/d 0": {0, 1},
	} {
		p, err := New(parse(t, text), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.FlushDevices(); !slices.Equal(got, want) {
			t.Errorf("%q: devices %v", text, got)
		}
	}
}

// Linear tables are copied into those above them, and joined.
func TestPlanIsFlat(t *testing.T) {
	p, err := New(parse(t, "a,,,,0 8 linear /dev/a 0,8 8 linear /dev/a 8,16 8 zero,24 8 zero;"+
		"b,,,,0 12 linear /dev/mapper/a 0,12 20 linear /dev/mapper/a 12;c,,,,0 32 striped 1 4 /dev/mapper/b 0"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []extent{{0, kindDevice, 0, 0}, {16 * 512, kindZero, 0, 0}}
	if !slices.EqualFunc(p.top.extents, want, func(a, b extent) bool { return a.start == b.start && a.kind == b.kind && a.index == b.index }) {
		t.Errorf("extents %+v", p.top.extents)
	}
}

// A table that uses the one below it twice doubles the extents: the plan has a
// limit.
func TestTooManyExtents(t *testing.T) {
	text := "t0,,,,0 1 zero,1 1 error"
	size := 2
	for i := 1; i < 25; i++ {
		text += fmt.Sprintf(";t%d,,,,0 %d linear /dev/mapper/t%d 0,%d %d linear /dev/mapper/t%d 0", i, size, i-1, size, size, i-1)
		size *= 2
	}
	if _, err := New(parse(t, text), nil); !errors.Is(err, table.ErrLimit) {
		t.Errorf("error %v", err)
	}
}

// deepest is a stack of as many striped tables as a stack can have.
func deepest() string {
	text := "t0,,,,0 2 striped 2 1 /dev/a 0 /dev/b 0"
	for i := 1; i < table.MaxDepth; i++ {
		text += fmt.Sprintf(";t%d,,,,0 2 striped 2 1 /dev/mapper/t%d 0 /dev/mapper/t%d 1", i, i-1, i-1)
	}
	return text
}

func TestDeepestStack(t *testing.T) {
	s := parse(t, deepest())
	p, err := New(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &p.RangeWalks(1)[0]
	if p.RangeWalk(w, 0, 1024); cap(w.frames) != 2*table.MaxDepth+1 {
		t.Errorf("%d frames", cap(w.frames))
	}
	var got []int
	for {
		piece, ok := w.Next()
		if !ok {
			break
		}
		got = append(got, piece.Device)
	}
	if !slices.Equal(got, []int{0, 1}) {
		t.Errorf("devices %v", got)
	}
}
