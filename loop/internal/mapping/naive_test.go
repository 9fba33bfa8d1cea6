package mapping

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// deviceSectors is the size of the devices in random stacks.
const deviceSectors = 4096

// A stackMaker makes stacks that are right: areas lie in their devices.
type stackMaker struct {
	*rand.Rand
	sizes []int // of the tables so far, in sectors
}

// location returns a location for an area of a length; tables are favoured.
func (m *stackMaker) location(length int) string {
	if n := len(m.sizes); n > 0 && m.IntN(4) > 0 {
		i := m.IntN(n)
		if m.sizes[i] >= length {
			return fmt.Sprintf("/dev/mapper/t%d %d", i, m.IntN(m.sizes[i]-length+1))
		}
	}
	return fmt.Sprintf("/dev/d%d %d", m.IntN(3), m.IntN(deviceSectors-length+1))
}

// line returns a line of at most a length, and its length.
func (m *stackMaker) line(start, limit int) (string, int) {
	length := 1 + m.IntN(limit)
	switch m.IntN(8) {
	case 0:
		return fmt.Sprintf("%d %d zero", start, length), length
	case 1:
		return fmt.Sprintf("%d %d error", start, length), length
	case 2, 3:
		n, chunk := 1+m.IntN(4), 1+m.IntN(9)
		rows := max(length/(n*chunk), 1)
		text := fmt.Sprintf("%d %d striped %d %d", start, n*chunk*rows, n, chunk)
		if m.IntN(6) == 0 {
			// Stripes that continue each other.
			device := m.location(n * chunk * rows)
			name, first, _ := strings.Cut(device, " ")
			var at int
			_, _ = fmt.Sscan(first, &at)
			text = fmt.Sprintf("%d %d striped %d %d", start, n*chunk, n, chunk)
			for i := range n {
				text += fmt.Sprintf(" %s %d", name, at+i*chunk)
			}
			return text, n * chunk
		}
		for range n {
			text += " " + m.location(chunk*rows)
		}
		return text, n * chunk * rows
	case 4:
		return fmt.Sprintf("%d %d crypt aes-xts-plain64 :64:user:k %d %s", start, length, m.IntN(100), m.location(length)), length
	default:
		return fmt.Sprintf("%d %d linear %s", start, length, m.location(length)), length
	}
}

// verity returns a line with verity, and its length. Its data is a table, if one can be.
func (m *stackMaker) verity(tables []string) (string, int) {
	length := 1 + m.IntN(64)
	device := fmt.Sprintf("/dev/d%d", m.IntN(3))
	if n := len(m.sizes); n > 0 && m.IntN(4) > 0 {
		i := m.IntN(n)
		device, length = fmt.Sprintf("/dev/mapper/t%d", i), min(length, m.sizes[i])
	}
	tree := fmt.Sprintf("/dev/d%d", m.IntN(3))
	if n := len(m.sizes); n > 0 && m.IntN(4) > 0 {
		if i := m.IntN(n); m.sizes[i] >= 6 && !strings.Contains(strings.Join(tables[:i+1], ";"), "verity") {
			tree = fmt.Sprintf("/dev/mapper/t%d", i)
		}
	}
	return fmt.Sprintf("0 %d verity 1 %s %s 512 512 %d %d sha256 %064d -", length, device, tree, length, m.IntN(2), 0), length
}

// stack returns a stack of some of the tables that it has made: those that the
// last one uses.
func (m *stackMaker) stack(t testing.TB) *table.Stack {
	t.Helper()
	m.sizes = nil
	var tables []string
	for i := range 1 + m.IntN(5) {
		text, start := fmt.Sprintf("t%d,,,ro", i), 0
		lines := 1 + m.IntN(5)
		if m.IntN(5) == 0 {
			line, length := m.verity(tables)
			text, start, lines = text+","+line, length, 0
		}
		for range lines {
			line, length := m.line(start, 64)
			text += "," + line
			start += length
		}
		tables = append(tables, text)
		m.sizes = append(m.sizes, start)
	}
	for i := len(tables) - 2; i >= 0; i-- {
		if !strings.Contains(strings.Join(tables[i+1:], ";"), fmt.Sprintf("/dev/mapper/t%d ", i)) {
			tables = append(tables[:i], tables[i+1:]...)
		}
	}
	return parse(t, strings.Join(tables, ";"))
}

// parse parses a stack of devices with the size for random stacks.
func parse(t testing.TB, text string) *table.Stack {
	t.Helper()
	s, err := table.Parse([]byte(text), table.Options{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	sizes := make([]table.DeviceSize, len(s.Devices()))
	for i := range sizes {
		sizes[i] = table.DeviceSize{Sectors: deviceSectors, Block: 512}
	}
	if _, err := s.CheckDevices(sizes); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// sector is where one sector of a device goes, found by the definition of each
// target, without a plan.
type sector struct {
	kind   Kind
	device string
	number uint64
	layers []layerSector
}

// layerSector is a sector of a layer.
type layerSector struct {
	target table.Target
	number uint64
}

// naive finds a sector of a table.
func naive(s *table.Stack, t int, n uint64) sector {
	for i := range s.Tables[t].Lines {
		l := &s.Tables[t].Lines[i]
		if n >= l.Start+l.Length {
			continue
		}
		in := n - l.Start
		switch target := l.Target.(type) {
		case *table.Zero:
			return sector{kind: Zero}
		case *table.ErrorTarget:
			return sector{kind: Error}
		case *table.Linear:
			return below(s, target.Location, in)
		case *table.Striped:
			chunk, stripes := uint64(target.Chunk), uint64(len(target.Stripes))
			q, r := in/chunk, in%chunk
			return below(s, target.Stripes[q%stripes], q/stripes*chunk+r)
		case *table.Crypt:
			found := below(s, target.Location, in)
			found.layers = append([]layerSector{{target, in}}, found.layers...)
			return found
		case *table.Verity:
			found := below(s, table.Location{Device: target.Data}, in)
			found.layers = append([]layerSector{{target, in}}, found.layers...)
			return found
		}
	}
	panic("sector outside of the table")
}

func below(s *table.Stack, l table.Location, in uint64) sector {
	if i, ok := s.Table(l.Device); ok {
		return naive(s, i, l.Start+in)
	}
	return sector{kind: Device, device: l.Device, number: l.Start + in}
}
