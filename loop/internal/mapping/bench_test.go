package mapping

import (
	"fmt"
	"strings"
	"testing"
)

// walked counts what walks yield, so that the compiler cannot leave them out.
var walked uint64

// plans are those of the benchmarks.
func plans(t testing.TB) map[string]*Plan {
	t.Helper()
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "%d 2 linear /dev/d%d %d\n", 2*i, i%2, i)
	}
	result := map[string]*Plan{}
	for name, text := range map[string]string{
		"linear":        "0 4000 linear /dev/a 8",
		"1000 lines":    lines.String(),
		"striped":       "0 4000 striped 2 8 /dev/a 0 /dev/b 0",
		"crypt":         "low,,,,0 4000 linear /dev/a 8;top,,,,0 4000 crypt aes-xts-plain64 :64:user:k 0 /dev/mapper/low 0",
		"deepest":       deepest(),
		"zero, error":   "0 8 zero\n8 8 error",
		"striped twice": "low,,,,0 2000 striped 2 4 /dev/a 0 /dev/b 0;top,,,,0 4000 striped 2 8 /dev/mapper/low 0 /dev/c 0",
	} {
		p, err := New(parse(t, text), nil)
		if err != nil {
			t.Fatal(err)
		}
		result[name] = p
	}
	return result
}

// request walks through a request in every way.
func request(p *Plan, w *RangeWalk, offset, length uint64) {
	for walk := p.Walk(offset, length); ; {
		piece, ok := walk.Next()
		if !ok {
			break
		}
		walked += piece.Length
	}
	for level := range p.Levels() {
		for walk := p.LayerWalk(level, offset, length, nil); ; {
			run, ok := walk.Next()
			if !ok {
				break
			}
			walked += run.Length
		}
	}
	if w == nil {
		return
	}
	for p.RangeWalk(w, offset, length); ; {
		piece, ok := w.Next()
		if !ok {
			break
		}
		walked += piece.Length
	}
}

func TestWalksAllocateNothing(t *testing.T) {
	for name, p := range plans(t) {
		w := &p.RangeWalks(1)[0]
		walked = 0
		if n := testing.AllocsPerRun(100, func() { request(p, w, 0, p.Size()) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if walked == 0 {
			t.Errorf("%s: nothing was walked", name)
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	for name, p := range plans(b) {
		size := min(p.Size(), 4096)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			offset := uint64(0)
			for b.Loop() {
				request(p, nil, offset, size)
				if offset += size; offset+size > p.Size() {
					offset = 0
				}
			}
		})
	}
}

func BenchmarkRangeWalk(b *testing.B) {
	p, w := plans(b)["striped"], new(RangeWalk)
	b.ReportAllocs()
	for b.Loop() {
		for p.RangeWalk(w, 0, p.Size()); ; {
			piece, ok := w.Next()
			if !ok {
				break
			}
			walked += piece.Length
		}
	}
}
