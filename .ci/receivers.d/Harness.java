import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** Asks the sample about one request, as {@code vectors.py} describes it. */
final class Harness {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> headers = new HashMap<>();
        for (String line : Files.readString(Path.of(arguments[0]), StandardCharsets.ISO_8859_1).split("\r\n")) {
            if (!line.isEmpty()) {
                headers.put(line.substring(0, line.indexOf(':')), line.substring(line.indexOf(':') + 2));
            }
        }
        byte[] body = Files.readAllBytes(Path.of(arguments[1]));
        long now = arguments.length > 2 ? Long.parseLong(arguments[2]) : System.currentTimeMillis() / 1000;
        System.exit(KallimaSignature.verify(System.getenv("SECRET"), headers, body, now) ? 0 : 10);
    }
}
