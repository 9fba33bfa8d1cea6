package keysource

import (
	"testing"
	"testing/fstest"
)

func TestAvailableMemory(t *testing.T) {
	const meminfo = "MemTotal:  10 kB\nMemFree:  5 kB\nMemAvailable:    8 kB\nHugePages_Total: 0\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"nothing", nil, 0},
		{"no MemAvailable", map[string]string{"proc/meminfo": "MemTotal:  10 kB\nMemFree:  5 kB\n"}, 0},
		{"no cgroups", map[string]string{"proc/meminfo": meminfo}, 8192},
		{"no limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n",
			"sys/fs/cgroup/a/memory.current": "9000\n", "sys/fs/cgroup/a/memory.stat": "",
		}, 8192},
		{"limit above", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "1:name=x:/c\n0::/a/b c\n",
			"sys/fs/cgroup/a/memory.max": "6000\n", "sys/fs/cgroup/a/memory.current": "1000\n",
			"sys/fs/cgroup/a/memory.stat":    "anon 600\ninactive_file 30\nactive_file 70\nslab_reclaimable 200\nslab_unreclaimable 90\n",
			"sys/fs/cgroup/a/b c/memory.max": "max\n", "sys/fs/cgroup/a/b c/memory.current": "1000\n", "sys/fs/cgroup/a/b c/memory.stat": "",
		}, 6000 - 1000 + 30 + 70 + 200},
		{"limit of a cgroup namespace's root", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n",
			"sys/fs/cgroup/memory.current": "96\n", "sys/fs/cgroup/memory.stat": "",
		}, 4000},
		{"limit reached", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n",
			"sys/fs/cgroup/memory.current": "5000\n", "sys/fs/cgroup/memory.stat": "inactive_file 10\n",
		}, 1},
	} {
		root := fstest.MapFS{}
		for name, text := range tt.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := availableMemory(root); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}
