# A foreign process: it connects to the agent, and gives the connection to whoever connects to a socket of its own.
#   perl pass-connection.pl AGENT-SOCKET OWN-SOCKET
use strict;
use warnings;
use IO::Socket::UNIX;

my ($agent, $own) = @ARGV;
my $is_x86 = (unpack 'x18 v', do { open my $elf, '<', $^X or die; read $elf, my $head, 20; $head }) == 62;
my ($SENDMSG, $SOL_SOCKET, $SCM_RIGHTS) = ($is_x86 ? 46 : 211, 1, 1);

my $connection = IO::Socket::UNIX->new(Peer => $agent) or die "agent: $!\n";
my $listener = IO::Socket::UNIX->new(Local => $own, Listen => 1) or die "own: $!\n";
chmod 0666, $own;
$| = 1;
print qq({"ready":true}\n);
my $taker = $listener->accept or die;
# struct iovec, struct cmsghdr with a descriptor, struct msghdr
my $byte = 'x';
my $vector = pack 'P Q', $byte, 1;
my $control = pack 'Q l l l x4', 20, $SOL_SOCKET, $SCM_RIGHTS, fileno $connection;
my $message = pack 'Q L x4 P Q P Q l x4', 0, 0, $vector, 1, $control, length $control, 0;
syscall($SENDMSG, fileno $taker, $message, 0) == 1 or die "sendmsg: $!\n";
<STDIN>;
