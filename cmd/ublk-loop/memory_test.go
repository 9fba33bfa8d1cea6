package main

import (
	"math"
	"runtime/debug"
	"strings"
	"testing"
)

func TestFindCode(t *testing.T) {
	const maps = "00400000-00401000 r--p 00000000 fe:00 1 /bin/x\n" +
		"00401000-005ec000 r-xp 00001000 fe:00 1 /bin/x\n" +
		"7fff0000-7fff2000 r-xp 00000000 00:00 0 [vdso]\n"
	start, length, err := findCode(strings.NewReader(maps))
	if err != nil || start != 0x401000 || length != 0x1eb000 {
		t.Errorf("%#x, %#x, error %v", start, length, err)
	}
	if _, _, err := findCode(strings.NewReader("00400000-00401000 r--p 0 fe:00 1 /bin/x\n")); err == nil {
		t.Error("code where there is none")
	}
}

func TestQuietGC(t *testing.T) {
	defer debug.SetMemoryLimit(math.MaxInt64)
	quietGC()
	if percent := debug.SetGCPercent(100); percent != -1 {
		t.Errorf("garbage is collected at %d %%", percent)
	}
	if limit := debug.SetMemoryLimit(-1); limit != gcLimit {
		t.Errorf("the limit is %d", limit)
	}
}
