package table

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// generator makes stacks that are often right.
type generator struct {
	*rand.Rand
	devices []string // disks, and tables so far
}

// oneOf returns one of some texts, mostly the first.
func (g *generator) oneOf(texts ...string) string {
	if g.IntN(3) > 0 {
		return texts[0]
	}
	return texts[g.IntN(len(texts))]
}

func (g *generator) device() string { return g.devices[g.IntN(len(g.devices))] }

// sectors returns a small number, mostly a multiple of 8.
func (g *generator) sectors(limit int) int {
	n := g.IntN(limit) &^ 7
	if g.IntN(30) == 0 {
		n += g.IntN(8)
	}
	return n
}

// target returns a target with its arguments for a length.
func (g *generator) target(length int) string {
	location := func() string { return fmt.Sprintf("%s %d", g.device(), g.sectors(64)) }
	switch g.IntN(6) {
	case 0:
		return g.oneOf("zero", "zero ", "zero x")
	case 1:
		return g.oneOf("error", "error "+location(), "error x")
	case 2:
		n := 1 + g.IntN(3)
		chunk := max(length/n/(1+g.IntN(2)), 1)
		text := fmt.Sprintf("striped %d %d", n, chunk)
		for range n {
			text += " " + location()
		}
		return text
	case 3:
		text := fmt.Sprintf("crypt aes-xts-plain64 %s %d %s", keyOf64, g.sectors(1000), location())
		return text + g.oneOf("", " 1 allow_discards", " 1 sector_size:1024", " 2 sector_size:4096 IV_large_sectors", " 1 high_priority", " 0", " 1")
	default:
		return "linear " + location()
	}
}

// verity returns a line with verity, of data blocks of 4096 bytes, which is right if the device
// is not too small.
func (g *generator) verity() string {
	blocks := 1 + g.IntN(300)
	return fmt.Sprintf("0 %d verity 1 %s %s %s %s %d %d sha256 %s %s%s", 8*(1+g.IntN(8)), g.device(), g.device(),
		g.oneOf("4096", "1024"), g.oneOf("4096", "8192", "512"), blocks, g.IntN(64), root256, g.oneOf("-", "0123"),
		g.oneOf("", " 0", " 1 ignore_zero_blocks", " 2 check_at_most_once ignore_corruption", " 1 restart_on_corruption"))
}

// stack returns a stack in the concise format. What is above verity is read-only.
func (g *generator) stack(a, b string) string {
	g.devices = []string{a, a, b}
	var tables []string
	readOnly := false
	for i := range 1 + g.IntN(3) {
		flags := g.oneOf("rw", "", "ro")
		hasVerity := g.IntN(4) == 0
		if readOnly = readOnly || hasVerity; readOnly {
			flags = "ro"
		}
		text := fmt.Sprintf("t%d,%s,%s,%s", i, g.oneOf("", fmt.Sprint("u", i)), g.oneOf("", fmt.Sprint(i)), flags)
		start := 0
		lines := 1 + g.IntN(3)
		if hasVerity {
			text, lines = text+","+g.verity(), 0
		}
		for range lines {
			length := g.sectors(64) + 8
			text += fmt.Sprintf("%s%d %d %s", g.oneOf(",", ", "), start, length, g.target(length))
			start += length
		}
		tables = append(tables, text)
		for range 6 { // the next table mostly uses this one
			g.devices = append(g.devices, fmt.Sprint("/dev/mapper/t", i))
		}
	}
	return strings.Join(tables, g.oneOf(";", "; ")) + g.oneOf("", ";")
}

// numRandom is how many accepted stacks the tests below use.
const numRandom = 60

// forRandom calls a function with random stacks that Parse accepts.
func forRandom(t *testing.T, a, b string, call func(text string, s *Stack)) {
	t.Helper()
	g := &generator{Rand: rand.New(rand.NewPCG(1, 2))}
	refused := 0
	for n := 0; n < numRandom; {
		text := g.stack(disk512, disk4096)
		s, err := parseStack(t, text)
		if err != nil {
			checkError(t, text, err)
			if refused++; refused > 100*numRandom {
				t.Fatalf("%d stacks are refused, the last with %v", refused, err)
			}
			continue
		}
		n++
		call(strings.NewReplacer(disk512, a, disk4096, b).Replace(text), s)
	}
	if refused < numRandom/4 {
		t.Errorf("only %d of the stacks are refused", refused)
	}
}

func TestRandomStacks(t *testing.T) {
	var multiple, crypt, striped, verity int
	forRandom(t, disk512, disk4096, func(text string, s *Stack) {
		checkRoundTrip(t, s)
		if len(s.Tables) > 1 {
			multiple++
		}
		crypt += strings.Count(text, "crypt")
		striped += strings.Count(text, "striped")
		verity += strings.Count(text, "verity")
	})
	if multiple == 0 || crypt == 0 || striped == 0 || verity == 0 {
		t.Errorf("%d stacks of more than one table, %d lines with crypt, %d with striped, %d with verity", multiple, crypt, striped, verity)
	}
}

// dmsetup takes every stack that this package takes.
func TestKernelDmsetupAcceptsRandom(t *testing.T) {
	m := newMapper(t, ublktest.OldestAndNewest)
	forRandom(t, m.a, m.b, func(text string, s *Stack) {
		if _, err := m.createdStack(text); err != nil {
			t.Errorf("%q: dmsetup: %v", text, err)
		}
		if t.Failed() {
			return
		}
		printed := strings.NewReplacer(disk512, m.a, disk4096, m.b).Replace(s.Concise())
		if _, err := m.createdStack(printed); err != nil {
			t.Errorf("%q, printed as %q: dmsetup: %v", text, printed, err)
		}
	})
}
