package luks

import (
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
		if d.refuses(changed) {
			t.Errorf("%s: cryptsetup refuses it", mutation.what)
		}
	}
	if taken == 0 || taken == len(all) {
		t.Errorf("the package takes %d of %d mutations", taken, len(all))
	}
	if d.refuses(m) || !d.refuses(m.edit(t, func(root node) { delete(root, "keyslots") })) {
		t.Error("cryptsetup refuses the volume itself, or takes one without key slots")
	}
	t.Logf("the package takes %d of %d mutations", taken, len(all))
}

// refuses reports whether cryptsetup does not take a volume for LUKS2.
func (d disk) refuses(m image) bool {
	d.t.Helper()
	if err := os.WriteFile(d.path, m.data, 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Truncate(d.path, m.size); err != nil {
		d.t.Fatal(err)
	}
	_, err := d.try("isLuks --type luks2")
	return err != nil
}
