package crashdisk

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// need skips where the machine cannot do it.
func need(t *testing.T, plain bool) {
	t.Helper()
	if err := Missing(plain); err != nil {
		t.Skip(err)
	}
}

// opened opens a disk for one test.
func opened(t *testing.T, o Options) *Disk {
	t.Helper()
	need(t, o.Plain)
	o.Folder = t.TempDir()
	if len(o.Server) > 0 {
		t.Setenv(role, "serve")
	}
	if o.Name == "" {
		o.Name = "test"
	}
	if o.Bytes == 0 {
		o.Bytes = 32 << 20
	}
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// steady makes a file of n pages on a disk that overwriting does not change.
func steady(t *testing.T, d *Disk, n int) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(d.Dir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(make([]byte, n*4096)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return f
}

// overwrite writes a page of f and flushes it, n times.
func overwrite(t *testing.T, f *os.File, n int) {
	t.Helper()
	page := make([]byte, 4096)
	for i := range n {
		if _, err := f.WriteAt(page, int64(i%8)*4096); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
	}
}

// counted gives what both sides of the device count.
func counted(t *testing.T, d *Disk) (kernel, mine Counts) {
	t.Helper()
	kernel, err := d.Counts()
	if err != nil {
		t.Fatal(err)
	}
	mine, err = d.Received()
	if err != nil {
		t.Fatal(err)
	}
	return kernel, mine
}

// What was written over costs one flush and its own bytes, and both sides of the
// device count the same.
func TestCounts(t *testing.T) {
	const n = 100
	for name, o := range map[string]Options{"served here": {}, "served by another": {Server: []string{os.Args[0]}}, "plain": {Plain: true}} {
		t.Run(name, func(t *testing.T) {
			d := opened(t, o)
			f := steady(t, d, 8)
			kernel0, mine0 := counted(t, d)
			overwrite(t, f, n)
			kernel, mine := counted(t, d)
			kernel, mine = kernel.Minus(kernel0), mine.Minus(mine0)
			// The kernel may write an inode or two of its own accord meanwhile.
			if kernel.Flushes < n || kernel.Flushes > n+10 || kernel.Bytes < n*4096 || kernel.Bytes > (n+30)*4096 {
				t.Errorf("the kernel counted %+v for %d pages, each flushed", kernel, n)
			}
			if o.Plain {
				return
			}
			if mine.Flushes != kernel.Flushes || mine.Bytes != kernel.Bytes || mine.Writes > kernel.Writes {
				t.Errorf("the kernel counted %+v, this side %+v", kernel, mine)
			}
		})
	}
}

// A file that grows costs its journal too: the counts must be able to tell.
func TestCountsTellGrowing(t *testing.T) {
	const n = 50
	d := opened(t, Options{})
	f := steady(t, d, 1)
	before, _ := counted(t, d)
	for range n {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
	}
	after, _ := counted(t, d)
	if c := after.Minus(before); c.Flushes < 2*n*9/10 || c.Bytes < 2*n*4096 {
		t.Errorf("%+v for %d pages of a file that grows", c, n)
	}
}

// A slow disk takes as long as it says: not less, and little more, whatever else
// the machine is doing.
func TestDelay(t *testing.T) {
	for name, c := range map[string]struct {
		delay Delay
		do    func(*testing.T, *os.File)
		want  time.Duration
	}{
		"a write and a flush": {SDCard(), func(t *testing.T, f *os.File) { overwrite(t, f, 30) },
			30 * (800*time.Microsecond + 8*time.Millisecond + 4096*time.Second/15e6)},
		"bytes": {Delay{PerSecond: 15e6}, func(t *testing.T, f *os.File) {
			if _, err := f.WriteAt(make([]byte, 4<<20), 0); err != nil {
				t.Fatal(err)
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				t.Fatal(err)
			}
		}, 4 << 20 * time.Second / 15e6},
	} {
		t.Run(name, func(t *testing.T) {
			d := opened(t, Options{Delay: c.delay})
			f := steady(t, d, 1024)
			var took time.Duration
			for range 5 { // a busy machine may be late, the disk must not be early
				start := time.Now()
				c.do(t, f)
				if took = time.Since(start); took < 2*c.want {
					break
				}
			}
			if took < c.want || took > 2*c.want {
				t.Errorf("took %v, want %v to twice as much", took, c.want)
			}
		})
	}
}

// killed starts a process that opens a disk, and kills it; before may look at the
// disk while it lives.
func killed(t *testing.T, folder string, before func()) {
	t.Helper()
	first := exec.Command(os.Args[0])
	first.Env = append(os.Environ(), role+"="+folder)
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if word, _ := bufio.NewReader(out).ReadString('\n'); word != "open\n" {
		t.Errorf("the first process says %q", word)
	}
	before()
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // it was killed
}

// nothingLeft fails where something of a disk is still there.
func nothingLeft(t *testing.T, folder string) {
	t.Helper()
	if left, err := mountsUnder(folder); err != nil || len(left) > 0 {
		t.Errorf("still mounted: %v, %v", left, err)
	}
	if left, err := loopsUnder(folder); err != nil || len(left) > 0 {
		t.Errorf("still attached: %v, %v", left, err)
	}
	if left, err := filepath.Glob(filepath.Join(folder, "*")); err != nil || len(left) > 0 {
		t.Errorf("still there: %v, %v", left, err)
	}
}

// The device does one thing after the other, and what came while it was busy does
// not pay for a wait that was too long.
func TestDelayIsSerial(t *testing.T) {
	p, ms := &platter{}, time.Millisecond
	for _, c := range []struct{ asked, cost, want time.Duration }{
		{0, 8 * ms, 8 * ms},
		{1 * ms, 2 * ms, 10 * ms},
		{12 * ms, 2 * ms, 14 * ms}, // it was idle
		{13 * ms, 0, 13 * ms},
		{13 * ms, 1 * ms, 15 * ms},
	} {
		if end, _ := p.ends(c.asked, c.cost); end != c.want {
			t.Errorf("asked at %v for %v: ends at %v, want %v", c.asked, c.cost, end, c.want)
		}
	}
	sd := SDCard()
	if d := sd.of(15e6); d != time.Second+800*time.Microsecond {
		t.Errorf("15 MB take %v", d)
	}
	if d := sd.of(0); d != 800*time.Microsecond {
		t.Errorf("an empty write takes %v", d)
	}
}

// What a killed process leaves is taken down by the next disk of that name, and
// nobody takes a living one's away.
func TestSecondOpen(t *testing.T) {
	need(t, false)
	o := Options{Name: "twice", Folder: t.TempDir(), Bytes: 16 << 20}
	killed(t, o.Folder, func() {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("second open: %v", err)
		}
	})
	again, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(again.Dir(), "lost+found")); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, o.Folder)
}

// Sweep takes down what dead processes left, and nothing else.
func TestSweep(t *testing.T) {
	need(t, false)
	folder := t.TempDir()
	killed(t, folder, func() {
		if n, err := Sweep(folder); n != 0 || err != nil {
			t.Errorf("swept %d living disks, %v", n, err)
		}
	})
	if n, err := Sweep(folder); n != 1 || err != nil {
		t.Errorf("swept %d, %v, want 1", n, err)
	}
	nothingLeft(t, folder)
}

// role makes this test's own program do something else: serve a disk, or open one
// in the folder that is given, and wait to be killed.
const role = "CRASHDISK_TEST_ROLE"

func TestMain(m *testing.M) {
	switch dir := os.Getenv(role); dir {
	case "":
		os.Exit(m.Run())
	case "serve":
		if err := Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		hold(dir)
	}
}

func hold(dir string) {
	d, err := Open(Options{Name: "twice", Folder: dir, Bytes: 16 << 20})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := os.WriteFile(filepath.Join(d.Dir(), "file"), []byte("x"), 0o600); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	<-make(chan struct{})
	runtime.KeepAlive(d) // or its lock would go before this process
}

func TestBadOptions(t *testing.T) {
	need(t, false)
	for want, o := range map[string]Options{
		"letters":       {Name: "a/b"},
		"multiple":      {Name: "a", Bytes: 16<<20 + 1},
		"16 or more":    {Name: "a", Bytes: 1 << 20},
		"as fast as it": {Name: "a", Plain: true, Delay: SDCard()},
	} {
		o.Folder = t.TempDir()
		if d, err := Open(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
			if d != nil {
				d.Close()
			}
		}
	}
}
