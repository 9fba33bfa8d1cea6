package table

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// mutator changes texts at random.
type mutator struct{ *rand.Rand }

// characters are those that mean something in a table, and some that do not.
const characters = " \t\n\r\v\f#,;\\+-:=@_./0123456789aAxrow\xa0\x00"

// numbers are at the borders of types and units.
var numbers = []string{
	"0", "1", "7", "8", "9", "00", "010", "255", "256", "1048575", "1048576", "2147483647", "2147483648", "4294967295", "4294967296",
	"18014398509481983", "18014398509481984", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "0x8", "+8", "-8",
}

// change returns a text with one change.
func (m mutator) change(text string) string {
	at := m.IntN(len(text) + 1)
	character := string(characters[m.IntN(len(characters))])
	words := strings.SplitAfter(text, " ")
	n := m.IntN(len(words))
	switch m.IntN(6) {
	case 0:
		return text[:at] + character + text[at:]
	case 1:
		return text[:max(at-1, 0)] + text[at:]
	case 2:
		return text[:max(at-1, 0)] + character + text[at:]
	case 3: // a word twice
		return strings.Join(words[:n], "") + words[n] + strings.Join(words[n:], "")
	case 4: // a word less
		return strings.Join(words[:n], "") + strings.Join(words[n+1:], "")
	default:
		words[n] = numbers[m.IntN(len(numbers))] + words[n][len(strings.TrimRight(words[n], " ")):]
		return strings.Join(words, "")
	}
}

// mutated returns a table or stack with up to three changes.
func (m mutator) mutated(texts []string) string {
	text := texts[m.IntN(len(texts))]
	for range 1 + m.IntN(3) {
		text = m.change(text)
	}
	return text
}

// corpus returns the texts of all cases.
func (m *mapper) corpus() (texts []string) {
	for _, tt := range accepted {
		texts = append(texts, tt.text)
	}
	for _, tt := range acceptedStacks {
		texts = append(texts, tt.text)
	}
	for _, tt := range stricter {
		texts = append(texts, tt.text)
	}
	for _, tt := range stricterStacks {
		texts = append(texts, tt.text)
	}
	for _, tt := range refused {
		texts = append(texts, tt.text)
	}
	for _, tt := range refusedStacks {
		texts = append(texts, tt.text)
	}
	g := &generator{Rand: rand.New(rand.NewPCG(3, 4))}
	for range 200 {
		texts = append(texts, g.stack("$A", "$B"))
	}
	major := m.major()
	for i := range texts {
		texts[i] = inStack(texts[i], m.a, m.b, major)
	}
	return texts
}

// accepts reports whether Parse takes a text, and the disks have room for it. It reports false
// for a text with other disks and keys than there are.
func (m *mapper) accepts(text string, major int) bool {
	s, err := Parse([]byte(text), Options{DeviceMapperMajor: uint32(major), KeysInText: true})
	if err != nil {
		return false
	}
	defer s.Close()
	blocks := map[string]uint32{m.a: 512, m.b: 4096}
	var sizes []DeviceSize
	for _, device := range s.Devices() {
		block := blocks[numberOf(device)]
		if block == 0 {
			return false
		}
		sizes = append(sizes, DeviceSize{sectorsOfDisks, block})
	}
	for i := range s.Tables {
		for _, l := range s.Tables[i].Lines {
			if c, ok := l.Target.(*Crypt); ok && c.Key.Secret == nil && string(c.Key.append(nil)) != keyOf64 {
				return false
			}
		}
	}
	_, err = s.CheckDevices(sizes)
	return err == nil
}

// numberOf returns the number of a device as the kernel writes it, or "" for a path.
func numberOf(device string) string {
	major, minor, ok := DeviceNumber(device)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// dmsetup takes each text that this package takes, however odd. The texts are those of all other
// tests with a few changes.
func TestKernelDmsetupAcceptsMutated(t *testing.T) {
	m := newMapper(t, ublktest.OldestAndNewest)
	wanted, seed := 60, uint64(1)
	if !testing.Short() {
		wanted, seed = 300, rand.Uint64()
	}
	texts, major := m.corpus(), m.major()
	mutator := mutator{rand.New(rand.NewPCG(seed, 0))}
	tried := 0
	for n := 0; n < wanted && tried < 100*wanted; tried++ {
		text := mutator.mutated(texts)
		if !m.accepts(text, major) {
			continue
		}
		n++
		create := m.created
		if isConcise([]byte(text)) {
			create = m.createdStack
		}
		if _, err := create(text); err != nil {
			t.Fatalf("seed %d: %q: dmsetup: %v", seed, text, err)
		}
	}
	t.Logf("seed %d: %d of %d texts are accepted", seed, wanted, tried)
	if tried == 100*wanted {
		t.Error("too few texts are accepted")
	}
}
