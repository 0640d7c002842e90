# What the attacks are staged on: an approved service that does what it is told on standard input, one line a
# command, and answers each with one JSON line. It stands for approved code that somebody has got hold of.
#   ask                 asks the agent for a token
#   fork-ask            a child asks; it runs what its parent runs
#   exec CMD ARG …      executes another program in this process
#   spawn CMD ARG …     starts a child and lets it run
#   map FILE            maps a file executable, as dlopen(3) does
#   load FILE           dlopen(3)
#   load-unload FILE    dlopen(3) and dlclose(3)
#   open FILE           opens a file for reading and keeps it open
#   open-write FILE     the same for writing
#   anonymous           maps anonymous memory writable and executable
#   write-execute       maps memory writable, fills it, and makes it executable
#   memfd-map           maps a memfd executable
#   memfd-open          has a memfd open
#   memfd-in-flight     has one on its way through a socket, and no other descriptor of it
#   memfd-spawn FILE …  copies a program into a memfd and starts a child on it
#   userfaultfd, io_uring
#   ask-on PATH         asks on a connection that it gets from whoever listens there
#   evaluate FILE       reads a file, closes it, and runs what it says
#   wipe-environment    overwrites its environment as others see it
BEGIN { my ($bag) = $^X =~ m{^(.*)/bin/}; @INC = ("$bag/lib") }
use strict;
use warnings;
use IO::Socket::UNIX;
use Socket qw(AF_UNIX SOCK_STREAM);

my $is_x86 = (unpack 'x18 v', do { open my $elf, '<', $^X or die; read $elf, my $head, 20; $head }) == 62;
my %call = $is_x86
  ? (mmap => 9, mprotect => 10, sendmsg => 46, recvmsg => 47, memfd_create => 319, userfaultfd => 323, io_uring_setup => 425)
  : (mmap => 222, mprotect => 226, sendmsg => 211, recvmsg => 212, memfd_create => 279, userfaultfd => 282, io_uring_setup => 425);
my ($READ, $WRITE, $EXECUTE, $PRIVATE, $ANONYMOUS) = (1, 2, 4, 2, 32);
my @kept;

sub call {
  my ($name, @arguments) = @_;
  my $result = syscall($call{$name}, @arguments);
  die "$name: $!\n" if $result == -1;
  return $result;
}

sub ask {
  my ($agent) = @_;
  my $body = qq({"audience":"$ENV{AUDIENCE}"});
  $agent //= IO::Socket::UNIX->new(Peer => $ENV{AGENT_SOCKET}) or die "agent: $!\n";
  print $agent "POST /v1/token HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n",
    "Content-Type: application/json\r\nContent-Length: ", length $body, "\r\n\r\n", $body;
  my $answer = do { local $/; <$agent> };
  my ($status) = $answer =~ m{^HTTP/1.1 (\d+)} or die "the agent gave no answer\n";
  my ($problem) = $answer =~ /(\{.*\})/s;
  # A token is as good as a secret: what is told is that there is one.
  return $status == 200 ? '{"token":true}' : $problem =~ s/[\r\n]+//gr;
}

sub memfd {
  my $name = "payload\0";
  my $fd = call('memfd_create', $name, 0);
  open my $file, '+>&=', $fd or die "memfd: $!\n";
  syswrite $file, "\xc3" x 4096;
  push @kept, $file;
  return $fd;
}

sub spawn {
  my @command = @_;
  my $child = fork // die;
  if ($child == 0) {
    open STDIN, '<', '/dev/null';
    open STDOUT, '>', '/dev/null';
    exec { $command[0] } 'busybox', @command[1 .. $#command];
    require POSIX;
    POSIX::_exit(1);
  }
  select undef, undef, undef, 0.3; # until it is what it shall be
  return qq({"pid":$child});
}

my %commands = (
  ask => sub { ask() },
  'ask-on' => sub {
    my $giver = IO::Socket::UNIX->new(Peer => $_[0]) or die "giver: $!\n";
    my ($byte, $control) = ("\0", "\0" x 24); # struct cmsghdr with a descriptor
    my $vector = pack 'P Q', $byte, 1;
    my $message = pack 'Q L x4 P Q P Q l x4', 0, 0, $vector, 1, $control, length $control, 0;
    call('recvmsg', fileno $giver, $message, 0);
    open my $agent, '+<&=', unpack 'x16 l', $control or die "descriptor: $!\n";
    $agent->autoflush(1);
    return ask($agent);
  },
  evaluate => sub { my $done = do $_[0]; die $@ if $@; die "$_[0]: $!\n" unless defined $done },
  'fork-ask' => sub {
    pipe my $from, my $to or die;
    my $child = fork // die;
    if ($child == 0) { print $to eval { ask() } // "{}"; close $to; require POSIX; POSIX::_exit(0) }
    close $to;
    my $answer = do { local $/; <$from> };
    waitpid $child, 0;
    return $answer;
  },
  exec => sub { exec { $_[0] } @_ or die "exec: $!\n" },
  spawn => \&spawn,
  map => sub {
    open my $file, '<', $_[0] or die "$_[0]: $!\n";
    call('mmap', 0, 4096, $READ | $EXECUTE, $PRIVATE, fileno $file, 0);
  },
  load => sub { require DynaLoader; DynaLoader::dl_load_file($_[0]) or die DynaLoader::dl_error(), "\n" },
  'load-unload' => sub {
    require DynaLoader;
    my $library = DynaLoader::dl_load_file($_[0]) or die DynaLoader::dl_error(), "\n";
    DynaLoader::dl_unload_file($library) or die DynaLoader::dl_error(), "\n";
  },
  open => sub { open my $file, '<', $_[0] or die "$_[0]: $!\n"; push @kept, $file },
  'open-write' => sub { open my $file, '+<', $_[0] or die "$_[0]: $!\n"; push @kept, $file },
  anonymous => sub { call('mmap', 0, 4096, $READ | $WRITE | $EXECUTE, $PRIVATE | $ANONYMOUS, -1, 0) },
  'write-execute' => sub {
    my $address = call('mmap', 0, 4096, $READ | $WRITE, $PRIVATE | $ANONYMOUS, -1, 0);
    call('mprotect', $address, 4096, $READ | $EXECUTE);
  },
  'memfd-map' => sub { call('mmap', 0, 4096, $READ | $EXECUTE, 1, memfd(), 0) },
  'memfd-open' => sub { memfd() },
  'memfd-in-flight' => sub {
    socketpair my $to, my $from, AF_UNIX, SOCK_STREAM, 0 or die "socketpair: $!\n";
    my $byte = 'x';
    my $control = pack 'Q l l l x4', 20, 1, 1, memfd(); # struct cmsghdr: SOL_SOCKET, SCM_RIGHTS
    my $vector = pack 'P Q', $byte, 1;
    my $message = pack 'Q L x4 P Q P Q l x4', 0, 0, $vector, 1, $control, length $control, 0;
    call('sendmsg', fileno $to, $message, 0);
    close pop @kept;
    push @kept, $to, $from;
  },
  'memfd-spawn' => sub {
    my ($file, @arguments) = @_;
    open my $program, '<:raw', $file or die "$file: $!\n";
    my $bytes = do { local $/; <$program> };
    my $name = "program\0";
    my $fd = call('memfd_create', $name, 0);
    open my $memory, '+>&=', $fd or die "memfd: $!\n";
    binmode $memory;
    print $memory $bytes;
    $memory->flush;
    return spawn("/proc/$$/fd/$fd", @arguments);
  },
  userfaultfd => sub { call('userfaultfd', 1) }, # UFFD_USER_MODE_ONLY: anybody may
  io_uring => sub { my $parameters = "\0" x 120; call('io_uring_setup', 4, $parameters) },
  'wipe-environment' => sub {
    open my $stat, '<', '/proc/self/stat' or die;
    my @fields = split ' ', (<$stat> =~ s/^.*\) //r);
    my ($start, $end) = @fields[47, 48]; # env_start and env_end, counted from field 3
    open my $memory, '+<:raw', '/proc/self/mem' or die "mem: $!\n";
    sysseek $memory, $start, 0;
    syswrite $memory, "\0" x ($end - $start) or die "mem: $!\n";
  },
);

$| = 1;
print qq({"ready":true}\n);
while (my $line = <STDIN>) {
  chomp $line;
  my ($name, @arguments) = split / /, $line;
  my $answer = eval { ($commands{$name} // die "no command $name\n")->(@arguments) };
  my $error = $@;
  if ($error ne '') { $error =~ s/["\\\s]+/ /g; print qq({"failed":"$error"}\n); next }
  print defined $answer && $answer =~ /^\{/ ? "$answer\n" : qq({"done":true}\n);
}
