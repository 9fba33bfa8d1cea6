package luks

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// wrong are values that replace a value of metadata.
var wrong = []any{
	nil, true, 1, -1, 1 << 40, "", "x", "1", "00", "backup-final",
	[]any{},
	[]any{1},
	[]any{nil},
	[]any{"7"},
	[]any{"backup-previous"},
	node{},
	node{"x": node{}},
}

// A mutation changes one value of metadata.
type mutation struct {
	what   string
	change func(root node)
}

// mutations returns a mutation for each value below a path and each wrong
// value, one that removes each value, and two that add values.
func mutations(value any, path ...string) []mutation {
	members, ok := value.(map[string]any)
	if !ok {
		return nil
	}
	at := func(change func(node)) func(node) {
		return func(root node) { change(root.at(path...)) }
	}
	var all []mutation
	add := func(name string, value any) {
		text, _ := json.Marshal(value)
		what := fmt.Sprintf("%s = %s", strings.Join(append(slices.Clone(path), name), "."), text)
		all = append(all, mutation{what, at(func(n node) { n[name] = value })})
	}
	for name, inner := range members {
		what := strings.Join(append(slices.Clone(path), name), ".") + " removed"
		all = append(all, mutation{what, at(func(n node) { delete(n, name) })})
		for _, value := range wrong {
			add(name, value)
		}
		all = append(all, mutations(inner, append(slices.Clone(path), name)...)...)
	}
	add("flags", []any{"x", 1})
	add("9", node{"type": "other"})
	return all
}

// What cryptsetup refuses, the package refuses: each value of the metadata of a
// volume is removed and replaced in turn.
func TestCryptsetupRefusesNoMore(t *testing.T) {
	if testing.Short() {
		t.Skip("runs cryptsetup a thousand times")
	}
	m := luks2(t).edit(t, token("0", node{"type": "other", "keyslots": []string{"0"}}))
	d := newDisk(t, m.size)
	var root map[string]any
	if err := json.Unmarshal(m.json(), &root); err != nil {
		t.Fatal(err)
	}
	all, taken := mutations(root), 0
	for _, mutation := range all {
		changed := m.edit(t, mutation.change)
		if _, err := refusal(changed); err != nil {
			continue // cryptsetup may take it
		}
		taken++
		if d.refuses(changed, "luks2") {
			t.Errorf("%s: cryptsetup refuses it", mutation.what)
		}
	}
	if taken == 0 || taken == len(all) {
		t.Errorf("the package takes %d of %d mutations", taken, len(all))
	}
	if d.refuses(m, "luks2") || !d.refuses(m.edit(t, func(root node) { delete(root, "keyslots") }), "luks2") {
		t.Error("cryptsetup refuses the volume itself, or takes one without key slots")
	}
	t.Logf("the package takes %d of %d mutations", taken, len(all))
}

// What cryptsetup refuses in a keyslot of LUKS1, the package refuses.
func TestCryptsetupRefusesNoMoreLUKS1(t *testing.T) {
	m := luks1Short(t)
	d := newDisk(t, m.size)
	taken, refused := 0, 0
	for slot := range luks1Slots {
		at := luks1SlotsAt + slot*luks1SlotSize
		for _, value := range []uint32{0, 1, 2, 8, 249, 250, 256, 512, 3847, 3848, 4000, 4096, 1 << 31, 1<<32 - 1} {
			for _, field := range []int{4, 40, 44} { // iterations, offset, stripes
				changed := m.clone()
				binary.BigEndian.PutUint32(changed.data[at+field:], value)
				if _, err := refusal(changed); err != nil {
					refused++
					continue // cryptsetup may take it
				}
				taken++
				if d.refuses(changed, "luks1") {
					t.Errorf("keyslot %d: cryptsetup refuses %d at byte %d", slot, value, field)
				}
			}
		}
	}
	if taken == 0 || refused == 0 {
		t.Errorf("the package takes %d changes and refuses %d", taken, refused)
	}
}

// refuses reports whether cryptsetup does not take a volume for one of a type.
func (d disk) refuses(m image, kind string) bool {
	d.t.Helper()
	if err := os.WriteFile(d.path, m.data, 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Truncate(d.path, m.size); err != nil {
		d.t.Fatal(err)
	}
	_, err := d.try("isLuks --type " + kind)
	return err != nil
}
