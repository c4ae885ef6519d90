package identity

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "identity.key")
	a, err := LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Size() != KeySize {
		t.Errorf("key file: mode %04o, %d bytes; want 0600, %d", info.Mode().Perm(), info.Size(), KeySize)
	}
	if bytes.Equal(a, make([]byte, KeySize)) {
		t.Error("key is all zeros")
	}
	b, err := LoadKey(path)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("second LoadKey: %v, same key: %v", err, bytes.Equal(a, b))
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("folder holds %d files, want the key alone: %v", len(files), files)
	}
}

func TestLoadKeyRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"short", func(p string) error { return os.WriteFile(p, make([]byte, 31), 0o600) }, "31 bytes, want 32"},
		{"empty", func(p string) error { return os.WriteFile(p, nil, 0o600) }, "0 bytes"},
		{"long", func(p string) error { return os.WriteFile(p, make([]byte, 33), 0o600) }, "33 bytes"},
		{"readable by the group", func(p string) error { return os.WriteFile(p, make([]byte, 32), 0o640) }, "chmod 600"},
		{"readable by all", func(p string) error { return os.WriteFile(p, make([]byte, 32), 0o604) }, "chmod 600"},
		{"a folder", func(p string) error { return os.Mkdir(p, 0o700) }, "not a regular file"},
		{"no parent", func(p string) error { return os.Remove(filepath.Dir(p)) }, "make key file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sub", "identity.key")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			key, err := LoadKey(path)
			if err == nil || key != nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("LoadKey: %v; want an error with %q and the path", err, c.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("LoadKey changed the file")
			}
		})
	}
}
