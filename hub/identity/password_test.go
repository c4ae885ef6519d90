package identity

import (
	"encoding/hex"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

func TestHash(t *testing.T) {
	a, err := Hash([]byte("pass"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Hash([]byte("pass"))
	if !strings.HasPrefix(a, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("Hash = %q, want OWASP's parameters", a)
	}
	if a == b {
		t.Error("two hashes of one password are equal: no salt")
	}
	if err := CheckHash(a); err != nil {
		t.Errorf("CheckHash of our own: %v", err)
	}
	if !Check(a, []byte("pass")) || Check(a, []byte("Pass")) || Check(a, nil) {
		t.Error("Check: want the right password alone to match")
	}
	if _, err := Hash(nil); err == nil {
		t.Error("Hash of an empty password: want an error")
	}
}

// Hashes that others have made: the argon2 reference implementation's own test
// (phc-winner-argon2, test.c, version 0x13), crypt(3) of libxcrypt, and
// crypt_blowfish in its old form.
var foreignHashes = []struct{ name, hash, password string }{
	{"argon2 reference", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password"},
	{"argon2 reference, small", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc", "password"},
	{"crypt(3) bcrypt", "$2y$07$BCryptRequires22Chrcte/VlQH0piJtjXl.0t1XkA8pw9dMXTpOq", "rasmuslerdorf"},
	{"crypt_blowfish", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
}

func TestCheckForeign(t *testing.T) {
	for _, c := range foreignHashes {
		if err := CheckHash(c.hash); err != nil {
			t.Errorf("CheckHash %s: %v", c.name, err)
		}
		if !Check(c.hash, []byte(c.password)) {
			t.Errorf("Check %s: right password does not match", c.name)
		}
		if Check(c.hash, []byte(c.password+"x")) {
			t.Errorf("Check %s: wrong password matches", c.name)
		}
	}
}

func TestArgonVector(t *testing.T) {
	// phc-winner-argon2, test.c: argon2id, t=2, m=2^16, p=1.
	const want = "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
	if got := hex.EncodeToString(argon2.IDKey([]byte("password"), []byte("somesalt"), 2, 1<<16, 1, 32)); got != want {
		t.Errorf("argon2id = %s, want %s", got, want)
	}
}

func TestCheckHash(t *testing.T) {
	costly, err := bcrypt.GenerateFromPassword([]byte("x"), 4)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := Hash([]byte("x"))
	parts := strings.Split(good, "$")
	with := func(i int, s string) string {
		p := append([]string(nil), parts...)
		p[i] = s
		return strings.Join(p, "$")
	}
	for _, c := range []struct{ name, hash, want string }{
		{"a password in clear", "hunter2", "neither an argon2id nor a bcrypt hash"},
		{"empty", "", "neither"},
		{"argon2i", with(1, "argon2i"), "neither"},
		{"old version", with(2, "v=16"), "another version"},
		{"no time", with(3, "m=19456,t=0,p=1"), "at most"},
		{"no lanes", with(3, "m=19456,t=2,p=0"), "at most"},
		{"too much memory", with(3, "m=4194304,t=2,p=1"), "at most m=262144"},
		{"too little memory", with(3, "m=7,t=2,p=1"), "at most"},
		{"too many passes", with(3, "m=19456,t=99,p=1"), "at most"},
		{"too many lanes", with(3, "m=19456,t=2,p=300"), "neither"},
		{"trailing parameter", with(3, "m=19456,t=2,p=1,data=x"), "neither"},
		{"leading zero", with(3, "m=019456,t=2,p=1"), "neither"},
		{"negative", with(3, "m=-1,t=2,p=1"), "neither"},
		{"salt not base64", with(4, "!!!!"), "neither"},
		{"salt too short", with(4, "c2FsdA"), "neither"},
		{"hash too short", with(5, "c2hvcnQ"), "neither"},
		{"part missing", strings.Join(parts[:5], "$"), "neither"},
		{"bcrypt cut short", string(costly[:59]), "neither"},
		{"bcrypt too costly", "$2a$31" + string(costly[6:]), "cost 31"},
	} {
		err := CheckHash(c.hash)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("CheckHash, %s: %v, want %q in it", c.name, err, c.want)
		}
		if err != nil && c.hash != "" && strings.Contains(err.Error(), c.hash) {
			t.Errorf("CheckHash, %s: error quotes the hash: %v", c.name, err)
		}
		if Check(c.hash, []byte("x")) {
			t.Errorf("Check, %s: matches", c.name)
		}
	}
	if err := CheckHash(string(costly)); err != nil {
		t.Errorf("CheckHash of bcrypt: %v", err)
	}
}
