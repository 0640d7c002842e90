# Ordinary work on perl: allocates, sorts, writes and reads files, forks; then asks for a token, over and over.
BEGIN { my ($bag) = $^X =~ m{^(.*)/bin/}; @INC = ("$bag/lib") }
use strict;
use warnings;
use IO::Socket::UNIX;

sub ask {
  my $body = qq({"audience":"$ENV{AUDIENCE}"});
  my $agent = IO::Socket::UNIX->new(Peer => $ENV{AGENT_SOCKET}) or die "agent: $!\n";
  print $agent "POST /v1/token HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n",
    "Content-Type: application/json\r\nContent-Length: ", length $body, "\r\n\r\n", $body;
  my $answer = do { local $/; <$agent> };
  my ($status) = $answer =~ m{^HTTP/1.1 (\d+)} or die "the agent gave no answer\n";
  my ($problem) = $answer =~ /(\{.*\})/s;
  return $status == 200 ? '{"token":true}' : $problem =~ s/[\r\n]+//gr;
}

$| = 1;
print qq({"ready":true}\n);
my $file = "/tmp/bagcheck-work-$$";
for (my $round = 0; ; $round += 1) {
  my %words = map { ($_ => join '', sort split //, "$_ $round") } 1 .. 20_000;
  open my $out, '>', $file or die "$file: $!\n";
  print $out "$_\t$words{$_}\n" for sort keys %words;
  close $out;
  open my $in, '<', $file or die;
  my $lines = () = <$in>;
  unlink $file;
  my $child = fork // die;
  if ($child == 0) { my @all = (1) x 100_000; require POSIX; POSIX::_exit(0) }
  select undef, undef, undef, 1;
  print ask(), "\n";
  waitpid $child, 0;
}
